// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Finds stop strings in a text that comes in parts. Text that may be the beginning of a stop string is held back, so
// that nothing is emitted which a later part takes away. Aho-Corasick: cost does not depend on how the text is cut.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tandem {

inline constexpr std::size_t kStopStringsMax = 16;
inline constexpr std::size_t kStopStringBytesMax = 256;

// One thread.
class StopMatcher {
 public:
  struct Output {
    std::string text;      // safe to emit
    bool stopped = false;  // a stop string came; text ends before it and nothing follows
  };

  // Empty strings, too many or too long ones throw Error.
  explicit StopMatcher(const std::vector<std::string>& stop_strings);

  Output push(std::string_view text);
  // The text that was held back, when no more comes.
  std::string finish();

 private:
  struct Node {
    std::array<std::int32_t, 256> next;  // complete after construction: where each byte leads
    std::uint32_t depth = 0;             // bytes of the beginning of a stop string that were matched
    std::uint32_t stop_size = 0;         // longest stop string that ends here, 0 for none
  };

  std::vector<Node> nodes_;
  std::int32_t state_ = 0;
  std::string held_;  // the last nodes_[state_].depth bytes
  bool stopped_ = false;
};

}  // namespace tandem
