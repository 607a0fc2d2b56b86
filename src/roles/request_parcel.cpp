// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "roles/request_parcel.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/format.h"

namespace tandem {
namespace {

constexpr std::int64_t kValueBytes = sizeof(float);

std::vector<std::shared_ptr<const EmbeddingRows>> contents_of(const Request& request) {
  std::vector<std::shared_ptr<const EmbeddingRows>> contents;
  for (const EmbeddedSpan& span : request.embedded)
    if (std::ranges::find(contents, span.rows) == contents.end()) contents.push_back(span.rows);
  return contents;
}

[[noreturn]] void refuse(std::string why) {
  throw Error(ErrorCode::kInvalidData, std::move(why));
}

}  // namespace

Status check_sendable(const Request& request, std::int64_t bytes_max) {
  if (request.constraint && !request.constraint->recipe())
    return {ErrorCode::kUnsupported, "nobody but this process can make the constraint of the answer"};
  for (const EmbeddedSpan& span : request.embedded) {
    const bool whole = span.rows && span.rows->hidden > 0 && span.rows->hidden <= kRowsHiddenMax &&
                       !span.rows->values.empty() && std::ssize(span.rows->values) % span.rows->hidden == 0;
    if (!whole)
      return {ErrorCode::kInvalidArgument,
              format("the {} embedded rows from position {} on are no whole rows", span.count, span.position)};
  }
  std::int64_t bytes = 0;
  for (const auto& content : contents_of(request)) bytes += std::ssize(content->values) * kValueBytes;
  if (bytes > bytes_max)
    return {ErrorCode::kOutOfResources,
            format("the prompt's pictures are {} MiB of rows, limit is {} MiB on their way to an attention worker",
                   (bytes + (1 << 20) - 1) >> 20, bytes_max >> 20)};
  return Status::ok();
}

Parcel::Parcel(Request request) : request_(std::move(request)), contents_(contents_of(request_)) {
  for (EmbeddedSpan& span : request_.embedded) {
    content_of_.push_back(static_cast<std::uint32_t>(std::ranges::find(contents_, span.rows) - contents_.begin()));
    span.rows.reset();
  }
}

Rows Parcel::next_rows() {
  const EmbeddingRows& content = *contents_[content_];
  const std::int64_t fit = std::max<std::int64_t>(1, kRowsPieceBytes / (content.hidden * kValueBytes));
  const std::int64_t count = std::min(fit, content.rows() - row_);
  Rows piece{.begins = row_ == 0, .digest = content.digest, .hidden = content.hidden, .values = {}};
  piece.values.assign(content.row(row_), content.row(row_ + count));
  row_ += count;
  if (row_ == content.rows()) {
    contents_[content_++].reset();
    row_ = 0;
  }
  return piece;
}

ControlMessage Parcel::next() {
  TANDEM_CHECK(!done_, "a parcel has no more messages");
  if (content_ < contents_.size()) return next_rows();
  done_ = true;
  Submit submit{.request = std::move(request_), .contents = std::move(content_of_), .constraint = {}};
  if (submit.request.constraint) submit.constraint = submit.request.constraint->recipe();
  submit.request.constraint.reset();
  return submit;
}

void PageOrder::take(const Page& piece) {
  if (piece.index != next_)
    throw Error(ErrorCode::kInvalidData, format("a piece of page {} of request {} comes, page {} {}", piece.index,
                                                piece.id, next_, open_ ? "is not whole" : "is next"));
  bytes_ += piece.bytes.size();
  if (bytes_ > kPagesBytesMax)
    throw Error(ErrorCode::kInvalidData,
                format("pages of request {} have {} bytes, limit is {}", piece.id, bytes_, kPagesBytesMax));
  open_ = !piece.last;
  if (piece.last) ++next_;
}

void ParcelReader::take(Rows piece) {
  const std::int64_t count = std::ssize(piece.values);
  if (piece.hidden < 1 || piece.hidden > kRowsHiddenMax || count == 0 || count % piece.hidden != 0)
    refuse(format("a piece of {} values is no rows of {}, limit is {}", count, piece.hidden, kRowsHiddenMax));
  bytes_ += count * kValueBytes;
  if (bytes_ > bytes_max_) refuse(format("{} bytes of rows come for one request, limit is {}", bytes_, bytes_max_));
  if (piece.begins) {
    auto content = std::make_shared<EmbeddingRows>();
    content->hidden = piece.hidden;
    content->digest = piece.digest;
    content->values = std::move(piece.values);
    contents_.push_back(std::move(content));
    return;
  }
  if (contents_.empty()) refuse("rows go on that have not begun");
  EmbeddingRows& content = *contents_.back();
  if (content.hidden != piece.hidden || content.digest != piece.digest)
    refuse("rows go on with those of another content");
  content.values.insert(content.values.end(), piece.values.begin(), piece.values.end());
}

Request ParcelReader::take(Submit submit) {
  const std::vector<std::shared_ptr<EmbeddingRows>> contents = std::exchange(contents_, {});
  bytes_ = 0;
  Request request = std::move(submit.request);
  if (submit.contents.size() != request.embedded.size())
    refuse(format("{} contents are named for {} spans of rows", submit.contents.size(), request.embedded.size()));
  for (std::size_t i = 0; i < submit.contents.size(); ++i) {
    const std::uint32_t index = submit.contents[i];
    if (index >= contents.size()) refuse(format("rows are taken of content {}, {} have come", index, contents.size()));
    request.embedded[i].rows = contents[index];
  }
  return request;
}

void ParcelReader::clear() {
  contents_.clear();
  bytes_ = 0;
}

}  // namespace tandem
