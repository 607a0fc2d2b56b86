// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Any bytes as a server's answer, whole and in pieces that the first byte chooses: the same events, or an Error in
// both.
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "base/error.h"
#include "base/rng.h"
#include "traffic/answer_reader.h"

namespace {

using namespace tandem;

struct Outcome {
  int status = 0;
  bool failed = false;
  std::vector<std::string> events;
  std::string body;
  bool operator==(const Outcome&) const = default;
};

Outcome read(std::string_view text, Rng* pieces) {
  Outcome outcome;
  AnswerReader reader;
  try {
    while (!text.empty() && !reader.whole()) {
      const std::size_t size =
          pieces ? std::min<std::size_t>(text.size(), 1 + pieces->below(1ULL << pieces->below(7))) : text.size();
      reader.feed(text.substr(0, size));
      text.remove_prefix(size);
    }
    reader.end();
  } catch (const Error& error) {
    TANDEM_CHECK(error.code() == ErrorCode::kInvalidData, "another error");
    outcome.failed = true;
    return outcome;
  }
  return {.status = reader.status(), .events = reader.take_events(), .body = reader.body()};
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  Rng pieces(data[0]);
  TANDEM_CHECK(read(text, nullptr) == read(text, &pieces), "pieces change what is read");
  return 0;
}
