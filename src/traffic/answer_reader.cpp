// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "traffic/answer_reader.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "base/error.h"
#include "base/format.h"

namespace tandem {

namespace {

[[noreturn]] void bad_answer(std::string_view problem) {
  throw Error(ErrorCode::kInvalidData, format("the server's answer {}", problem));
}

std::string small_letters(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

std::string_view trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

std::uint64_t number_of(std::string_view text, int base, const char* what) {
  std::uint64_t value = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (failure != std::errc() || end != text.data() + text.size()) bad_answer(format("has a bad {}", what));
  return value;
}

}  // namespace

void AnswerReader::feed(std::string_view bytes) {
  pending_ += bytes;
  while (used_ < pending_.size() && state_ != State::kWhole) {
    const std::size_t before = used_;
    step();
    if (used_ == before) break;
  }
  pending_.erase(0, used_);
  used_ = 0;
}

void AnswerReader::end() {
  if (state_ == State::kToEnd) state_ = State::kWhole;
  if (state_ != State::kWhole) bad_answer("ended before its end");
}

std::vector<std::string> AnswerReader::take_events() {
  return std::exchange(events_, {});
}

// Takes one line or one piece of content from pending_, or nothing when it is not all there.
void AnswerReader::step() {
  std::string line;
  switch (state_) {
    case State::kHead:
      if (take_line(line, kHeadBytesMax)) take_head(line);
      return;
    case State::kChunkSize:
      if (!take_line(line, 1024)) return;
      left_ = number_of(trimmed(std::string_view(line).substr(0, line.find(';'))), 16, "size of a chunk");
      state_ = left_ == 0 ? State::kTrailer : State::kChunk;
      return;
    case State::kChunk:
      take_content(pending_.size() - used_);
      if (left_ == 0) state_ = State::kChunkEnd;
      return;
    case State::kChunkEnd:
      if (!take_line(line, 1024)) return;
      if (!line.empty()) bad_answer("has a chunk that is longer than its size");
      state_ = State::kChunkSize;
      return;
    case State::kTrailer:
      if (take_line(line, 1024) && line.empty()) state_ = State::kWhole;
      return;
    case State::kLength:
      take_content(pending_.size() - used_);
      if (left_ == 0) state_ = State::kWhole;
      return;
    case State::kToEnd:
      add_content(std::string_view(pending_).substr(used_));
      used_ = pending_.size();
      return;
    case State::kWhole:
      return;
  }
}

bool AnswerReader::take_line(std::string& line, std::size_t bytes_max) {
  const std::size_t end = pending_.find('\n', used_);
  const std::size_t size = (end == std::string::npos ? pending_.size() : end) - used_;
  if (size > bytes_max) bad_answer(format("has a line of more than {} bytes", bytes_max));
  if (end == std::string::npos) return false;
  line = pending_.substr(used_, size);
  if (line.ends_with('\r')) line.pop_back();
  used_ = end + 1;
  return true;
}

void AnswerReader::take_head(std::string_view line) {
  head_bytes_ += line.size() + 2;
  if (head_bytes_ > kHeadBytesMax) bad_answer(format("has headers of more than {} bytes", kHeadBytesMax));
  if (status_ == 0) {  // HTTP/1.1 200 OK
    if (!line.starts_with("HTTP/1.") || line.size() < 12 || line[8] != ' ') bad_answer("is no HTTP");
    status_ = static_cast<int>(number_of(line.substr(9, 3), 10, "status"));
    if (status_ < 100 || status_ > 599) bad_answer("has a bad status");
    return;
  }
  if (line.empty()) return begin_body();
  const std::size_t colon = line.find(':');
  if (colon == std::string_view::npos) bad_answer("has a header without a colon");
  const std::string name = small_letters(line.substr(0, colon));
  const std::string value = small_letters(trimmed(line.substr(colon + 1)));
  if (name == "content-type") stream_ = value.starts_with("text/event-stream");
  if (name == "transfer-encoding") {
    if (value != "chunked") bad_answer("has a transfer encoding other than chunked");
    chunked_ = true;
  }
  if (name == "content-length") {
    left_ = number_of(value, 10, "length");
    has_length_ = true;
  }
}

void AnswerReader::begin_body() {
  if (status_ < 200) {  // a word on the way; the answer comes
    status_ = 0;
    return;
  }
  if (chunked_)
    state_ = State::kChunkSize;
  else if (!has_length_)
    state_ = State::kToEnd;
  else
    state_ = left_ == 0 ? State::kWhole : State::kLength;
}

void AnswerReader::take_content(std::size_t bytes) {
  bytes = static_cast<std::size_t>(std::min<std::uint64_t>(bytes, left_));
  add_content(std::string_view(pending_).substr(used_, bytes));
  used_ += bytes;
  left_ -= bytes;
}

void AnswerReader::add_content(std::string_view bytes) {
  if (!stream_) {
    if (body_.size() + bytes.size() > kBodyBytesMax) bad_answer(format("is longer than {} bytes", kBodyBytesMax));
    body_ += bytes;
    return;
  }
  for (std::size_t end; (end = bytes.find('\n')) != std::string_view::npos; bytes.remove_prefix(end + 1)) {
    line_ += bytes.substr(0, end);
    if (line_.ends_with('\r')) line_.pop_back();
    take_event_line(line_);
    line_.clear();
  }
  line_ += bytes;
  if (line_.size() + data_.size() > kEventBytesMax)
    bad_answer(format("has an event of more than {} bytes", kEventBytesMax));
}

// An event is its data lines up to an empty one; other fields and comments say nothing to us.
void AnswerReader::take_event_line(std::string_view line) {
  if (line.empty()) {
    if (std::exchange(has_data_, false)) events_.push_back(std::exchange(data_, {}));
    return;
  }
  if (!line.starts_with("data:")) return;
  line.remove_prefix(5);
  if (line.starts_with(' ')) line.remove_prefix(1);
  if (data_.size() + line.size() > kEventBytesMax)
    bad_answer(format("has an event of more than {} bytes", kEventBytesMax));
  if (has_data_) data_ += '\n';
  data_ += line;
  has_data_ = true;
}

}  // namespace tandem
