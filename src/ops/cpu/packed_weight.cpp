// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cpu/packed_weight.h"

#include <algorithm>

#include "base/error.h"
#include "base/format.h"
#include "ops/cpu/kernels.h"
#include "ops/cpu/panel_format.h"

namespace tandem::cpu {

namespace {

constexpr std::int64_t kColumns = kPanelColumns;

}  // namespace

std::unique_ptr<PackedWeight> PackedWeight::pack(const WeightSource& source, ThreadTeam& team) {
  std::vector<Segment> segments;
  std::size_t bytes = 0;
  std::int64_t column = 0;
  for (const WeightPart& part : source.parts) {
    if (!has_panel_format(part.dtype))
      throw Error(ErrorCode::kUnsupported,
                  format("the cpu backend does not hold weights of type {}", name(part.dtype)));
    const auto block = static_cast<std::int64_t>(traits(part.dtype).block_elements);
    if (source.k % block != 0)
      throw Error(ErrorCode::kInvalidArgument,
                  format("a {} weight has {} input features, not a multiple of {}", name(part.dtype), source.k, block));
    if (part.dtype == DType::kF8E4M3 && part.scales.values.empty() && part.rows * source.k > 0)
      throw Error(ErrorCode::kInvalidArgument, "a f8_e4m3 weight has no block scales");
    const std::size_t bytes_each = panel_bytes(part.dtype, source.k);
    const std::int64_t panels = (part.rows + kColumns - 1) / kColumns;
    segments.push_back({part.dtype, column, part.rows, panels, bytes_each, bytes});
    bytes += static_cast<std::size_t>(panels) * bytes_each;
    column += part.rows;
  }
  std::unique_ptr<PackedWeight> weight(new PackedWeight(source, std::move(segments), bytes));
  if (bytes == 0) return weight;  // an empty share of a width
  team.run([&](int thread) {
    const std::int64_t begin = weight->panels_ * thread / team.threads(),
                       end = weight->panels_ * (thread + 1) / team.threads();
    for (std::int64_t panel = begin; panel < end; ++panel) weight->fill_panel(source, panel);
  });
  return weight;
}

PackedWeight::PackedWeight(const WeightSource& source, std::vector<Segment> segments, std::size_t bytes)
    : Weight(source.n(), source.k, bytes),
      segments_(std::move(segments)),
      quantised_(tandem::is_quantised(source)),
      data_(allocate_host(bytes)) {
  for (const Segment& segment : segments_) {
    panels_ += segment.panels;
    const auto block = static_cast<std::int64_t>(traits(segment.dtype).block_elements);
    block_ = std::max(block_, segment.dtype == DType::kF8E4M3 ? kScaleBlock : block);
  }
}

void PackedWeight::fill_panel(const WeightSource& source, std::int64_t panel) {
  std::size_t s = 0;
  while (panel >= segments_[s].panels) panel -= segments_[s++].panels;
  const Segment& segment = segments_[s];
  std::byte* out = data_.bytes_data() + segment.offset + static_cast<std::size_t>(panel) * segment.panel_bytes;
  place_rows(source.parts[s], panel * kColumns, k(), out);
}

void PackedWeight::read_row(std::int64_t row, float* out) const {
  std::size_t s = 0;
  while (row >= segments_[s].first_column + segments_[s].columns) ++s;
  const std::int64_t column = row - segments_[s].first_column;
  take_row(segments_[s].dtype, panel(segments_[s], column / kColumns), k(), column % kColumns, out);
}

}  // namespace tandem::cpu
