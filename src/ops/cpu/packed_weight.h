// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A weight in the order the kernels read it: panels of 32 output columns, k after k within a panel.
//
// Each part of the source becomes a segment in the part's own type; its last panel is filled up with zero columns.
// How a panel lies in memory: panel_format.h.
#pragma once

#include <memory>
#include <vector>

#include "ops/cpu/thread_team.h"
#include "ops/weight.h"
#include "tensor/tensor.h"

namespace tandem::cpu {

struct Segment {
  DType dtype;
  std::int64_t first_column;  // of the whole weight
  std::int64_t columns;
  std::int64_t panels;
  std::size_t panel_bytes;
  std::size_t offset;  // of the first panel
};

class PackedWeight final : public Weight {
 public:
  // Throws Error: kUnsupported for a type it cannot hold, kInvalidArgument when k ends inside a quantised block.
  static std::unique_ptr<PackedWeight> pack(const WeightSource& source, ThreadTeam& team);

  const std::vector<Segment>& segments() const { return segments_; }
  std::int64_t panels() const { return panels_; }
  // Slices of k begin and end at multiples of this, or at its end.
  std::int64_t block() const { return block_; }
  // All of it, in blocks of integers.
  bool is_quantised() const { return quantised_; }
  const std::byte* panel(const Segment& segment, std::int64_t index) const {
    return data_.bytes_data() + segment.offset + static_cast<std::size_t>(index) * segment.panel_bytes;
  }
  // Widens one output row to k() values.
  void read_row(std::int64_t row, float* out) const;

 private:
  PackedWeight(const WeightSource& source, std::vector<Segment> segments, std::size_t bytes);
  void fill_panel(const WeightSource& source, std::int64_t panel);

  std::vector<Segment> segments_;
  std::int64_t panels_ = 0;
  std::int64_t block_ = 1;
  bool quantised_;
  Buffer data_;
};

inline const PackedWeight& packed(const Weight* weight) {
  return static_cast<const PackedWeight&>(*weight);
}

}  // namespace tandem::cpu
