// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cpu/panel_transpose.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "hwy/highway.h"

namespace tandem::cpu {

namespace {

// For the least instruction set of a build: memory is slower than any.
namespace hn = hwy::HWY_NAMESPACE;

constexpr std::int64_t kVectorBytes = 16, kLineBytes = 64;

// A square of as many rows as a vector has elements. Interleaving row i with row i + half, as often as the side is a
// power of two, exchanges rows and columns.
template <class Element>
void transpose_square(const std::byte* const* rows, std::int64_t byte, Element* out) {
  constexpr int kSide = kVectorBytes / sizeof(Element);
  const hn::FixedTag<Element, kSide> tag;
  using Vector = hn::Vec<decltype(tag)>;
  Vector now[kSide], next[kSide];
  for (int i = 0; i < kSide; ++i) now[i] = hn::LoadU(tag, reinterpret_cast<const Element*>(rows[i] + byte));
  for (int step = 1; step < kSide; step *= 2) {
    for (int i = 0; i < kSide / 2; ++i) {
      next[2 * i] = hn::InterleaveLower(tag, now[i], now[i + kSide / 2]);
      next[2 * i + 1] = hn::InterleaveUpper(tag, now[i], now[i + kSide / 2]);
    }
    for (int i = 0; i < kSide; ++i) now[i] = next[i];
  }
  for (int i = 0; i < kSide; ++i) hn::StoreU(now[i], tag, out + i * kPanelColumns);
}

template <class Element>
void transpose(const PanelRows& rows, std::int64_t k, Element* out) {
  constexpr std::int64_t kSide = kVectorBytes / sizeof(Element), kLine = kLineBytes / sizeof(Element);
  const std::int64_t squares_end = k / kSide * kSide;
  // A line of each row is used up before the next row's: rows of a matrix often fall on the same sets of a cache.
  for (std::int64_t line = 0; line < squares_end; line += kLine) {
    for (std::int64_t row = 0; row < kPanelColumns; row += kSide) {
      for (std::int64_t i = line; i < std::min(line + kLine, squares_end); i += kSide)
        transpose_square(&rows[static_cast<std::size_t>(row)], i * static_cast<std::int64_t>(sizeof(Element)),
                         out + i * kPanelColumns + row);
    }
  }
  for (std::int64_t i = squares_end; i < k; ++i)
    for (std::int64_t c = 0; c < kPanelColumns; ++c)
      std::memcpy(out + i * kPanelColumns + c, rows[static_cast<std::size_t>(c)] + i * sizeof(Element),
                  sizeof(Element));
}

}  // namespace

void transpose_rows(const PanelRows& rows, std::int64_t k, std::size_t element_bytes, std::byte* out) {
  switch (element_bytes) {
    case 1:
      return transpose(rows, k, reinterpret_cast<std::uint8_t*>(out));
    case 2:
      return transpose(rows, k, reinterpret_cast<std::uint16_t*>(out));
    case 4:
      return transpose(rows, k, reinterpret_cast<std::uint32_t*>(out));
    default:
      TANDEM_CHECK(false, "elements of another size");
  }
}

}  // namespace tandem::cpu
