// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Bytes of a server's answer, in whatever pieces they come, to server-sent events or a body. For one answer of a
// connection that ends with it. No socket: tests and a fuzzer feed it as one would.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tandem {

class AnswerReader {
 public:
  static constexpr std::size_t kHeadBytesMax = 64 << 10;
  static constexpr std::size_t kEventBytesMax = 4 << 20;
  static constexpr std::size_t kBodyBytesMax = 16 << 20;  // of an answer that is no stream

  // Throws Error{kInvalidData} for what is no HTTP answer.
  void feed(std::string_view bytes);
  // The connection has ended. Throws Error{kInvalidData} when the answer has not.
  void end();

  int status() const { return status_; }  // 0: not known yet
  bool whole() const { return state_ == State::kWhole; }
  bool is_stream() const { return stream_; }
  // The data of events that have come since the last call, in order.
  std::vector<std::string> take_events();
  // What came, when it is no stream.
  const std::string& body() const { return body_; }

 private:
  enum class State { kHead, kChunkSize, kChunk, kChunkEnd, kTrailer, kLength, kToEnd, kWhole };

  void step();
  bool take_line(std::string& line, std::size_t bytes_max);
  void take_head(std::string_view line);
  void begin_body();
  void take_content(std::size_t bytes);
  void add_content(std::string_view bytes);
  void take_event_line(std::string_view line);

  State state_ = State::kHead;
  std::string pending_;   // bytes that are not understood yet
  std::size_t used_ = 0;  // of pending_
  std::size_t head_bytes_ = 0;
  int status_ = 0;
  bool chunked_ = false, stream_ = false, has_length_ = false;
  std::uint64_t left_ = 0;          // of the chunk, or of the body
  std::string body_, line_, data_;  // data_: of the event that is not finished
  bool has_data_ = false;
  std::vector<std::string> events_;
};

}  // namespace tandem
