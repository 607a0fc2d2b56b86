// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cpu/panel_format.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "base/scalar.h"
#include "ops/cpu/kernels.h"
#include "ops/cpu/panel_transpose.h"

namespace tandem::cpu {

namespace {

constexpr std::int64_t kColumns = kPanelColumns;
constexpr std::int64_t kBlock = 32;    // values of a Q8 or Q4 block
constexpr std::int64_t kKBlock = 256;  // of a K block

std::uint16_t load_u16(const std::byte* p) {
  std::uint16_t value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

void store_u16(std::byte* p, std::uint16_t value) {
  std::memcpy(p, &value, sizeof value);
}

// The low nibbles of eight bytes as one word, the first byte lowest.
std::uint32_t gather_nibbles(std::uint64_t bytes) {
  bytes &= 0x0f0f0f0f0f0f0f0full;
  bytes = (bytes | bytes >> 4) & 0x00ff00ff00ff00ffull;
  bytes = (bytes | bytes >> 8) & 0x0000ffff0000ffffull;
  return static_cast<std::uint32_t>(bytes | bytes >> 16);
}

// Each of these copies one source row into column `column` of a panel.

template <class Element>
void place_plain(const std::byte* row, std::int64_t k, std::int64_t column, std::byte* panel) {
  auto* out = reinterpret_cast<Element*>(panel) + column;
  for (std::int64_t i = 0; i < k; ++i, out += kColumns) std::memcpy(out, row + i * sizeof(Element), sizeof(Element));
}

void place_bf16(const std::byte* row, std::int64_t k, std::int64_t column, std::byte* panel) {
  place_plain<std::uint32_t>(row, k / 2, column, panel);
  if (k % 2 == 0) return;
  const std::uint32_t last = load_u16(row + 2 * (k - 1));
  std::memcpy(panel + 4 * (k / 2 * kColumns + column), &last, sizeof last);
}

// Where value j of a Q8 block lies: even ones of every eight fill one word, odd ones the next.
std::int64_t place_of_q8(std::int64_t j, std::int64_t column) {
  const std::int64_t word = j / 8 * 2 + j % 2, byte = j % 8 / 2;
  return 2 * kColumns + (word * kColumns + column) * 4 + byte;
}

void place_q8(const std::byte* row, std::int64_t k, std::int64_t column, std::byte* panel) {
  for (std::int64_t b = 0; b < k; b += kBlock, row += 34, panel += 34 * kColumns) {
    store_u16(panel + 2 * column, load_u16(row));
    for (std::int64_t j = 0; j < kBlock; ++j) panel[place_of_q8(j, column)] = row[2 + j];
  }
}

void place_q4(const std::byte* row, std::int64_t k, std::int64_t column, std::byte* panel, bool has_minimum) {
  const std::int64_t header = has_minimum ? 4 : 2;
  for (std::int64_t b = 0; b < k; b += kBlock, row += header + 16, panel += (header + 16) * kColumns) {
    store_u16(panel + 2 * column, load_u16(row));
    if (has_minimum) store_u16(panel + 2 * (kColumns + column), load_u16(row + 2));
    std::uint64_t halves[2];  // values 0 … 7 and 16 … 23; 8 … 15 and 24 … 31
    std::memcpy(halves, row + header, sizeof halves);
    const std::uint32_t words[4] = {gather_nibbles(halves[0]), gather_nibbles(halves[1]),
                                    gather_nibbles(halves[0] >> 4), gather_nibbles(halves[1] >> 4)};
    for (int g = 0; g < 4; ++g)
      std::memcpy(panel + header * kColumns + (g * kColumns + column) * 4, &words[g], sizeof words[g]);
  }
}

// The inverse of place, widening.
void take_q4(const std::byte* panel, std::int64_t k, std::int64_t column, bool has_minimum, float* out) {
  const std::int64_t header = has_minimum ? 4 : 2;
  for (std::int64_t b = 0; b < k; b += kBlock, panel += (header + 16) * kColumns) {
    const float scale = f16_to_f32(load_u16(panel + 2 * column));
    const float minimum = has_minimum ? f16_to_f32(load_u16(panel + 2 * (kColumns + column))) : -8 * scale;
    for (std::int64_t g = 0; g < 4; ++g) {
      std::uint32_t word;
      std::memcpy(&word, panel + header * kColumns + (g * kColumns + column) * 4, sizeof word);
      for (int j = 0; j < 8; ++j, word >>= 4) out[b + g * 8 + j] = scale * static_cast<float>(word & 15u) + minimum;
    }
  }
}

void place_f8(const BlockScales& scales, std::int64_t source_row, const std::byte* row, std::int64_t k,
              std::int64_t column, std::byte* panel) {
  for (std::int64_t b = 0; b < k; b += kScaleBlock) {
    const float scale = scales.at(source_row, b);
    std::memcpy(panel + 4 * column, &scale, sizeof scale);
    panel += 4 * kColumns;
    for (std::int64_t i = b; i < std::min(b + kScaleBlock, k); ++i, panel += kColumns) panel[column] = row[i];
  }
}

void take_f8(const std::byte* panel, std::int64_t k, std::int64_t column, float* out) {
  for (std::int64_t b = 0; b < k; b += kScaleBlock) {
    float scale;
    std::memcpy(&scale, panel + 4 * column, sizeof scale);
    panel += 4 * kColumns;
    for (std::int64_t i = b; i < std::min(b + kScaleBlock, k); ++i, panel += kColumns)
      out[i] = f8_e4m3_to_f32(static_cast<std::uint8_t>(panel[column])) * scale;
  }
}

// ---- K types

// Where the pieces of a K block lie: in a row of the file, and in a panel.
struct KLayout {
  std::int64_t scales, scale_bytes;  // in the file: d (and m) stand before or after them
  std::int64_t halves, halves_count;
  std::int64_t group;   // k that share a scale
  std::uint32_t upper;  // mask of a value's bits above its nibble
  std::int64_t words;   // in a panel, per column and group: of upper bits, if any, and of nibbles

  // Where the upper bits of value j of a group begin in their word.
  std::int64_t upper_at(std::int64_t j) const { return 8 * (j % 8 / 2) + 32 / group * (j / 8 * 2 + j % 2); }
};

KLayout layout_of(DType dtype) {
  switch (dtype) {
    case DType::kQ4_K:
      return {.scales = 4, .scale_bytes = 12, .halves = 0, .halves_count = 2, .group = 32, .upper = 0, .words = 4};
    case DType::kQ5_K:
      return {.scales = 4, .scale_bytes = 12, .halves = 0, .halves_count = 2, .group = 32, .upper = 1, .words = 5};
    default:
      return {.scales = 192, .scale_bytes = 16, .halves = 208, .halves_count = 1, .group = 16, .upper = 3, .words = 3};
  }
}

// The 256 values of a block as they are stored, without scale and minimum.
void unpack_k(DType dtype, const std::byte* block, std::uint8_t* q) {
  const auto at = [&](std::int64_t i) { return static_cast<unsigned>(block[i]); };
  for (int i = 0; i < kKBlock; ++i) {
    const int g = i / 32, j = i % 32;
    unsigned value;
    if (dtype == DType::kQ6_K) {
      const int half = g / 4, r = g % 4;
      value = (at(half * 64 + r % 2 * 32 + j) >> (r / 2 * 4) & 15u) | (at(128 + half * 32 + j) >> (2 * r) & 3u) << 4;
    } else {
      value = at((dtype == DType::kQ5_K ? 48 : 16) + g / 2 * 32 + j) >> (g % 2 * 4) & 15u;
      if (dtype == DType::kQ5_K) value |= (at(16 + j) >> g & 1u) << 4;
    }
    q[i] = static_cast<std::uint8_t>(value);
  }
}

void place_k(DType dtype, const std::byte* row, std::int64_t k, std::int64_t column, std::byte* panel) {
  const KLayout layout = layout_of(dtype);
  const auto block_bytes = static_cast<std::int64_t>(traits(dtype).block_bytes);
  for (std::int64_t b = 0; b < k; b += kKBlock, row += block_bytes, panel += block_bytes * kColumns) {
    std::byte* out = panel;
    for (std::int64_t h = 0; h < layout.halves_count; ++h, out += 2 * kColumns)
      store_u16(out + 2 * column, load_u16(row + layout.halves + 2 * h));
    for (std::int64_t i = 0; i < layout.scale_bytes; ++i, out += kColumns) out[column] = row[layout.scales + i];
    std::uint8_t q[kKBlock];
    unpack_k(dtype, row, q);
    for (std::int64_t g = 0; g < kKBlock; g += layout.group) {
      const auto put = [&](std::uint32_t word) {
        std::memcpy(out + 4 * column, &word, sizeof word);
        out += 4 * kColumns;
      };
      if (layout.upper != 0) {
        std::uint32_t word = 0;
        for (std::int64_t j = 0; j < layout.group; ++j)
          word |= static_cast<std::uint32_t>(q[g + j] >> 4) << layout.upper_at(j);
        put(word);
      }
      for (std::int64_t j = 0; j < layout.group; j += 8) {
        std::uint64_t bytes;
        std::memcpy(&bytes, q + g + j, sizeof bytes);
        put(gather_nibbles(bytes));
      }
    }
  }
}

void take_k(DType dtype, const std::byte* panel, std::int64_t k, std::int64_t column, float* out) {
  const KLayout layout = layout_of(dtype);
  const std::int64_t front = layout.halves_count * 2 * kColumns, words = front + layout.scale_bytes * kColumns;
  for (std::int64_t b = 0; b < k; b += kKBlock, panel += traits(dtype).block_bytes * kColumns) {
    const float d = f16_to_f32(load_u16(panel + 2 * column));
    const float m = dtype == DType::kQ6_K ? 0 : f16_to_f32(load_u16(panel + 2 * (kColumns + column)));
    std::byte scales[16];
    for (std::int64_t i = 0; i < layout.scale_bytes; ++i) scales[i] = panel[front + i * kColumns + column];
    for (std::int64_t i = 0; i < kKBlock; ++i) {
      const std::int64_t group = i / layout.group, j = i % layout.group;
      const auto word_at = [&](std::int64_t index) {
        std::uint32_t word;
        std::memcpy(&word, panel + words + ((group * layout.words + index) * kColumns + column) * 4, sizeof word);
        return word;
      };
      const std::int64_t nibbles = layout.upper != 0 ? 1 : 0;
      std::uint32_t q = word_at(nibbles + j / 8) >> (j % 8 * 4) & 15u;
      if (layout.upper != 0) q |= (word_at(0) >> layout.upper_at(j) & layout.upper) << 4;
      if (dtype == DType::kQ6_K) {
        const float scale = d * static_cast<float>(static_cast<std::int8_t>(scales[group]));
        out[b + i] = scale * static_cast<float>(static_cast<int>(q) - 32);
      } else {
        const ScaleAndMinimum small = k_scale(scales, static_cast<int>(group));
        out[b + i] =
            d * static_cast<float>(small.scale) * static_cast<float>(q) - m * static_cast<float>(small.minimum);
      }
    }
  }
}

}  // namespace

bool has_panel_format(DType dtype) {
  switch (dtype) {
    case DType::kF32:
    case DType::kBF16:
    case DType::kF16:
    case DType::kF8E4M3:
    case DType::kQ8_0:
    case DType::kQ4_0:
    case DType::kQ4_1:
    case DType::kQ4_K:
    case DType::kQ5_K:
    case DType::kQ6_K:
      return true;
    default:
      return false;
  }
}

std::size_t panel_bytes(DType dtype, std::int64_t k) {
  if (dtype == DType::kBF16) k += k % 2;
  const std::int64_t scales = dtype == DType::kF8E4M3 ? (k + kScaleBlock - 1) / kScaleBlock : 0;
  return (row_bytes(dtype, static_cast<std::size_t>(k)) + static_cast<std::size_t>(scales) * 4) * kColumns;
}

void place_row(const WeightPart& part, std::int64_t packed_row, std::int64_t k, std::int64_t column, std::byte* panel) {
  const std::int64_t source_row = part.source_row(packed_row);
  const std::byte* row = part.row(source_row);
  switch (part.dtype) {
    case DType::kF32:
      return place_plain<float>(row, k, column, panel);
    case DType::kBF16:
      return place_bf16(row, k, column, panel);
    case DType::kF16:
      return place_plain<std::uint16_t>(row, k, column, panel);
    case DType::kF8E4M3:
      return place_f8(part.scales, source_row, row, k, column, panel);
    case DType::kQ8_0:
      return place_q8(row, k, column, panel);
    case DType::kQ4_0:
      return place_q4(row, k, column, panel, false);
    case DType::kQ4_1:
      return place_q4(row, k, column, panel, true);
    case DType::kQ4_K:
    case DType::kQ5_K:
    case DType::kQ6_K:
      return place_k(part.dtype, row, k, column, panel);
    default:
      TANDEM_CHECK(false, "a type that has_panel_format refuses");
  }
}

namespace {

// Of f8: each block's scales, then its codes.
void place_f8_rows(const WeightPart& part, const std::array<std::int64_t, kColumns>& source_rows, PanelRows rows,
                   std::int64_t k, std::byte* panel) {
  for (std::int64_t b = 0; b < k; b += kScaleBlock) {
    for (std::size_t c = 0; c < kColumns; ++c) {
      const float scale = part.scales.at(source_rows[c], b);
      std::memcpy(panel + 4 * c, &scale, sizeof scale);
    }
    panel += 4 * kColumns;
    const std::int64_t count = std::min(kScaleBlock, k - b);
    transpose_rows(rows, count, 1, panel);
    panel += count * kColumns;
    for (const std::byte*& row : rows) row += count;
  }
}

}  // namespace

void place_rows(const WeightPart& part, std::int64_t first, std::int64_t k, std::byte* panel) {
  const std::int64_t count = std::min(kColumns, part.rows - first);
  if (count < kColumns || is_quantised(part.dtype)) {
    for (std::int64_t c = 0; c < count; ++c) place_row(part, first + c, k, c, panel);
    return;
  }
  std::array<std::int64_t, kColumns> source_rows;
  PanelRows rows;
  for (std::size_t c = 0; c < kColumns; ++c) {
    source_rows[c] = part.source_row(first + static_cast<std::int64_t>(c));
    rows[c] = part.row(source_rows[c]);
  }
  switch (part.dtype) {
    case DType::kF8E4M3:
      return place_f8_rows(part, source_rows, rows, k, panel);
    case DType::kBF16:
      transpose_rows(rows, k / 2, 4, panel);
      for (std::int64_t c = 0; k % 2 == 1 && c < kColumns; ++c)
        place_bf16(rows[static_cast<std::size_t>(c)] + 2 * (k - 1), 1, c, panel + 4 * (k / 2) * kColumns);
      return;
    default:
      transpose_rows(rows, k, traits(part.dtype).block_bytes, panel);
  }
}

void take_row(DType dtype, const std::byte* panel, std::int64_t k, std::int64_t column, float* out) {
  switch (dtype) {
    case DType::kF32:
      for (std::int64_t i = 0; i < k; ++i) out[i] = reinterpret_cast<const float*>(panel)[i * kColumns + column];
      return;
    case DType::kBF16:
      for (std::int64_t i = 0; i < k; ++i)
        out[i] = bf16_to_f32(load_u16(panel + 4 * (i / 2 * kColumns + column) + 2 * (i % 2)));
      return;
    case DType::kF16:
      for (std::int64_t i = 0; i < k; ++i) out[i] = f16_to_f32(load_u16(panel + 2 * (i * kColumns + column)));
      return;
    case DType::kF8E4M3:
      return take_f8(panel, k, column, out);
    case DType::kQ8_0:
      for (std::int64_t i = 0; i < k; ++i) {
        const std::byte* block = panel + i / kBlock * 34 * kColumns;
        const auto q = static_cast<std::int8_t>(block[place_of_q8(i % kBlock, column)]);
        out[i] = f16_to_f32(load_u16(block + 2 * column)) * static_cast<float>(q);
      }
      return;
    case DType::kQ4_0:
      return take_q4(panel, k, column, false, out);
    case DType::kQ4_1:
      return take_q4(panel, k, column, true, out);
    case DType::kQ4_K:
    case DType::kQ5_K:
    case DType::kQ6_K:
      return take_k(dtype, panel, k, column, out);
    default:
      TANDEM_CHECK(false, "a type that has_panel_format refuses");
  }
}

}  // namespace tandem::cpu
