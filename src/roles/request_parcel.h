// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A request on its way from the front to an attention worker. Rows made elsewhere (sched/embedding_rows.h) are longer
// than a message may be, and would keep heartbeats waiting: they go ahead in pieces, each content once however many
// spans take of it, and the Submit that follows says which span takes of which. A constraint goes as what it was made
// from. Nothing here waits; one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "roles/control_message.h"

namespace tandem {

inline constexpr std::int64_t kRowsPieceBytes = 4 << 20;  // of values, or of KV, in one message
// Of what waits in a connection: more would only wait, and news and heartbeats behind it.
inline constexpr std::size_t kUnsentEnough = 2 * kRowsPieceBytes;
inline constexpr std::size_t kPagesBytesMax = std::size_t{1} << 30;   // of a request's KV that goes to another worker
inline constexpr std::int64_t kRowsBytesMax = std::int64_t{1} << 30;  // of all rows of a request
inline constexpr std::int64_t kRowsHiddenMax = kRowsPieceBytes / 4;   // a piece has one row at least

// Ok, or why a request cannot be sent: a constraint that nobody else can make, spans without whole rows, rows of more
// than bytes_max.
Status check_sendable(const Request& request, std::int64_t bytes_max = kRowsBytesMax);

// The messages of one request, made one at a time as they are sent.
class Parcel {
 public:
  // request: one that check_sendable lets pass.
  explicit Parcel(Request request);
  RequestId id() const { return request_.id; }
  bool begun() const { return done_ || content_ > 0 || row_ > 0; }
  bool done() const { return done_; }
  ControlMessage next();  // unless done

 private:
  Rows next_rows();

  Request request_;
  std::vector<std::shared_ptr<const EmbeddingRows>> contents_;
  std::vector<std::uint32_t> content_of_;  // by span
  std::size_t content_ = 0;                // that is under way
  std::int64_t row_ = 0;                   // of it, to be sent next
  bool done_ = false;
};

// Whether pieces of one request's KV come in order and within the limit.
class PageOrder {
 public:
  // Throws Error{kInvalidData}.
  void take(const Page& piece);

 private:
  std::uint32_t next_ = 0;  // block
  bool open_ = false;       // it has begun
  std::size_t bytes_ = 0;
};

// The other end. Bytes are from outside: each piece and span is checked, and refused by throwing Error{kInvalidData}.
class ParcelReader {
 public:
  explicit ParcelReader(std::int64_t bytes_max = kRowsBytesMax) : bytes_max_(bytes_max) {}
  void take(Rows piece);
  // The whole request, without its constraint. What came ahead is used up.
  Request take(Submit submit);
  // Forgets what came ahead.
  void clear();

 private:
  const std::int64_t bytes_max_;
  std::int64_t bytes_ = 0;
  std::vector<std::shared_ptr<EmbeddingRows>> contents_;
};

}  // namespace tandem
