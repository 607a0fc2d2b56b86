// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cpu/packed_weight.h"

#include <cstring>

#include "base/error.h"
#include "base/format.h"
#include "base/scalar.h"
#include "ops/cpu/kernels.h"

namespace tandem::cpu {

namespace {

constexpr std::int64_t kColumns = kPanelColumns;
constexpr std::int64_t kBlock = 32;  // values of a quantised block

std::uint16_t load_u16(const std::byte* p) {
  std::uint16_t value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

void store_u16(std::byte* p, std::uint16_t value) {
  std::memcpy(p, &value, sizeof value);
}

bool can_pack(DType dtype) {
  switch (dtype) {
    case DType::kF32:
    case DType::kBF16:
    case DType::kF16:
    case DType::kQ8_0:
    case DType::kQ4_0:
    case DType::kQ4_1:
      return true;
    default:
      return false;
  }
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

void place_q8(const std::byte* row, std::int64_t k, std::int64_t column, std::byte* panel) {
  for (std::int64_t b = 0; b < k; b += kBlock, row += 34, panel += 34 * kColumns) {
    store_u16(panel + 2 * column, load_u16(row));
    std::byte* out = panel + 2 * kColumns + column;
    for (std::int64_t j = 0; j < kBlock; ++j) out[j * kColumns] = row[2 + j];
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

void place(DType dtype, const std::byte* row, std::int64_t k, std::int64_t column, std::byte* panel) {
  switch (dtype) {
    case DType::kF32:
      return place_plain<float>(row, k, column, panel);
    case DType::kBF16:
    case DType::kF16:
      return place_plain<std::uint16_t>(row, k, column, panel);
    case DType::kQ8_0:
      return place_q8(row, k, column, panel);
    case DType::kQ4_0:
      return place_q4(row, k, column, panel, false);
    case DType::kQ4_1:
      return place_q4(row, k, column, panel, true);
    default:
      TANDEM_CHECK(false, "a type that can_pack refuses");
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

void take(DType dtype, const std::byte* panel, std::int64_t k, std::int64_t column, float* out) {
  switch (dtype) {
    case DType::kF32:
      for (std::int64_t i = 0; i < k; ++i) out[i] = reinterpret_cast<const float*>(panel)[i * kColumns + column];
      return;
    case DType::kBF16:
      for (std::int64_t i = 0; i < k; ++i) out[i] = bf16_to_f32(load_u16(panel + 2 * (i * kColumns + column)));
      return;
    case DType::kF16:
      for (std::int64_t i = 0; i < k; ++i) out[i] = f16_to_f32(load_u16(panel + 2 * (i * kColumns + column)));
      return;
    case DType::kQ8_0:
      for (std::int64_t i = 0; i < k; ++i) {
        const std::byte* block = panel + i / kBlock * 34 * kColumns;
        const auto q = static_cast<std::int8_t>(block[2 * kColumns + i % kBlock * kColumns + column]);
        out[i] = f16_to_f32(load_u16(block + 2 * column)) * static_cast<float>(q);
      }
      return;
    case DType::kQ4_0:
      return take_q4(panel, k, column, false, out);
    case DType::kQ4_1:
      return take_q4(panel, k, column, true, out);
    default:
      TANDEM_CHECK(false, "a type that can_pack refuses");
  }
}

}  // namespace

std::unique_ptr<PackedWeight> PackedWeight::pack(const WeightSource& source, ThreadTeam& team) {
  std::vector<Segment> segments;
  std::size_t bytes = 0;
  std::int64_t column = 0;
  for (const WeightPart& part : source.parts) {
    if (!can_pack(part.dtype))
      throw Error(ErrorCode::kUnsupported,
                  format("the cpu backend does not hold weights of type {}", name(part.dtype)));
    const auto block = static_cast<std::int64_t>(traits(part.dtype).block_elements);
    if (source.k % block != 0)
      throw Error(ErrorCode::kInvalidArgument,
                  format("a {} weight has {} input features, not a multiple of {}", name(part.dtype), source.k, block));
    const std::size_t panel_bytes = row_bytes(part.dtype, static_cast<std::size_t>(source.k)) * kColumns;
    const std::int64_t panels = (part.rows + kColumns - 1) / kColumns;
    segments.push_back({part.dtype, column, part.rows, panels, panel_bytes, bytes});
    bytes += static_cast<std::size_t>(panels) * panel_bytes;
    column += part.rows;
  }
  std::unique_ptr<PackedWeight> weight(new PackedWeight(source, std::move(segments), bytes));
  team.run([&](int thread) {
    const std::int64_t begin = weight->panels_ * thread / team.threads(),
                       end = weight->panels_ * (thread + 1) / team.threads();
    for (std::int64_t panel = begin; panel < end; ++panel) weight->fill_panel(source, panel);
  });
  return weight;
}

PackedWeight::PackedWeight(const WeightSource& source, std::vector<Segment> segments, std::size_t bytes)
    : Weight(source.n(), source.k, bytes), segments_(std::move(segments)), data_(allocate_host(bytes)) {
  for (const Segment& segment : segments_) {
    panels_ += segment.panels;
    is_quantised_ |= tandem::is_quantised(segment.dtype);
  }
}

void PackedWeight::fill_panel(const WeightSource& source, std::int64_t panel) {
  std::size_t s = 0;
  while (panel >= segments_[s].panels) panel -= segments_[s++].panels;
  const Segment& segment = segments_[s];
  const WeightPart& part = source.parts[s];
  std::byte* out = data_.bytes_data() + segment.offset + static_cast<std::size_t>(panel) * segment.panel_bytes;
  for (std::int64_t c = 0; c < kColumns && panel * kColumns + c < part.rows; ++c) {
    const std::int64_t i = panel * kColumns + c;
    const std::int64_t from = part.row_order.empty() ? i : part.row_order[static_cast<std::size_t>(i)];
    place(part.dtype, part.data + static_cast<std::size_t>(from) * part.row_stride_bytes, k(), c, out);
  }
}

void PackedWeight::read_row(std::int64_t row, float* out) const {
  std::size_t s = 0;
  while (row >= segments_[s].first_column + segments_[s].columns) ++s;
  const std::int64_t column = row - segments_[s].first_column;
  take(segments_[s].dtype, panel(segments_[s], column / kColumns), k(), column % kColumns, out);
}

}  // namespace tandem::cpu
