// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Rows made elsewhere, by a vision encoder for one, that stand in for the embeddings of some prompt tokens. They come
// with a name for their content: where equal names stand at equal places, prompts may share KV; where names differ,
// they never do, though the tokens are the same placeholders.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

namespace tandem {

struct EmbeddingRows {
  std::int64_t hidden = 0;
  std::vector<float> values;              // [rows, hidden]
  std::array<std::uint8_t, 32> digest{};  // equal digests, equal values

  std::int64_t rows() const { return hidden == 0 ? 0 : static_cast<std::int64_t>(values.size()) / hidden; }
  const float* row(std::int64_t i) const { return values.data() + i * hidden; }
};

// Rows [first_row, first_row + count) at positions [position, position + count).
struct EmbeddedSpan {
  std::int64_t position = 0;
  std::int64_t count = 0;
  std::int64_t first_row = 0;
  std::shared_ptr<const EmbeddingRows> rows;

  std::int64_t end() const { return position + count; }
};

// Numbers for (digest, first row), so that a prefix can be compared as a list of numbers. A number never means two
// things: the table forgets, and then gives new ones.
class ContentIds {
 public:
  ContentIds() = default;
  explicit ContentIds(std::size_t entries_max) : entries_max_(entries_max) {}

  // The numbers that stand in the prefix for the span's tokens, none of which is a token id: one for its first row and
  // one for the others, which tells two spans side by side from a longer one. None when numbers have run out.
  struct Keys {
    std::int32_t first = 0, others = 0;
  };
  std::optional<Keys> keys(const EmbeddedSpan& span);

 private:
  struct Content {
    std::array<std::uint8_t, 32> digest;
    std::int64_t first_row;
    auto operator<=>(const Content&) const = default;
  };
  static constexpr std::int32_t kNumbers = 1 << 30;  // two keys each, below zero

  std::size_t entries_max_ = 1 << 16;
  std::map<Content, std::int32_t> numbers_;
  std::int32_t next_ = 0;
};

}  // namespace tandem
