// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Requests in pieces, in any order and of any sizes: a refusal, or spans that have rows, and no more bytes than the
// limit. Each step of the input is one message; a byte says which, the next ones its numbers.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/check.h"
#include "roles/request_parcel.h"

using namespace tandem;

namespace {

constexpr std::int64_t kBytesMax = 4096;

struct Bytes {
  std::span<const std::uint8_t> rest;
  std::uint8_t next() {
    if (rest.empty()) return 0;
    const std::uint8_t first = rest.front();
    rest = rest.subspan(1);
    return first;
  }
};

Rows some_rows(Bytes& bytes) {
  Rows rows;
  rows.begins = bytes.next() % 2 == 0;
  rows.digest[0] = bytes.next() % 2;
  rows.hidden = static_cast<std::int8_t>(bytes.next());
  rows.values.resize(std::size_t{bytes.next()} * (bytes.next() % 4));
  return rows;
}

Submit some_submit(Bytes& bytes) {
  Submit submit;
  submit.request.embedded.resize(bytes.next() % 4);
  submit.contents.resize(bytes.next() % 4);
  for (std::uint32_t& content : submit.contents) content = bytes.next();
  return submit;
}

void check(const Request& request) {
  std::int64_t bytes = 0;
  std::vector<const EmbeddingRows*> seen;
  for (const EmbeddedSpan& span : request.embedded) {
    TANDEM_CHECK(span.rows && span.rows->rows() > 0, "a span has no rows");
    TANDEM_CHECK(span.rows->rows() * span.rows->hidden == std::ssize(span.rows->values), "rows are not whole");
    if (std::ranges::find(seen, span.rows.get()) != seen.end()) continue;
    seen.push_back(span.rows.get());
    bytes += std::ssize(span.rows->values) * std::int64_t{sizeof(float)};
  }
  TANDEM_CHECK(bytes <= kBytesMax, "rows are more than the limit");
  TANDEM_CHECK(static_cast<bool>(check_sendable(request, kBytesMax)), "what has come could not have been sent");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  ParcelReader reader(kBytesMax);
  for (Bytes bytes{{data, size}}; !bytes.rest.empty();) {
    try {
      switch (bytes.next() % 4) {
        case 0:
          check(reader.take(some_submit(bytes)));
          break;
        case 1:
          reader.clear();
          break;
        default:
          reader.take(some_rows(bytes));
      }
    } catch (const Error& error) {
      TANDEM_CHECK(error.code() == ErrorCode::kInvalidData, "a refusal of another kind");
      reader.clear();  // its connection is at its end
    }
  }
  return 0;
}
