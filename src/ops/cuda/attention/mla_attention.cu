// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/attention/mla_attention.h"

#include <algorithm>

#include "ops/cuda/attention/decode_merge.cuh"
#include "ops/cuda/attention/mla_decode.cuh"
#include "ops/cuda/launch.cuh"

namespace tandem::cuda {

// What the merge kernel asks: a unit is a merge.
__device__ inline decode::Merged<float4> merged_of(const MlaAttention& op) {
  const auto unit = static_cast<std::int32_t>(blockIdx.y);
  const RowParts parts(op, unit / op.units.of_row());
  const Partials<float4> first = mla::partials_of(op, unit * op.parts_max);
  return {parts.count(), 1, first.values, first.stats, 64};
}

// Row and column as if a partial result were 64 by 256 (decode_merge.h); in truth a thread's 16 bytes are two pairs of
// one head's columns, eight apart, as store(MlaAttention) of mla_decode.cuh left them.
__device__ inline void store_merged(const MlaAttention& op, int row, int column, float a, float b) {
  const auto unit = static_cast<std::int32_t>(blockIdx.y);
  const int second = row / MlaUnits::kTermRows % 2, head = row / 16 * MlaUnits::kTermRows + row % MlaUnits::kTermRows;
  if (head >= op.units.heads(unit % op.units.of_row())) return;
  float* to = mla::output_of(op, unit, head) + column / 8 * 16 + second * 8 + column % 8;
  to[0] = a;
  to[1] = b;
}

void run(const MlaAttention& op, Stream stream) {
  const std::int32_t units = op.rows * op.units.of_row();
  if (units == 0) return;
  launch_dependent(mla::attend<MlaAttention>, dim3(static_cast<unsigned>(std::min(op.blocks, units * op.parts_max))),
                   mla::kThreads, sizeof(mla::Shared), stream, op);
  if (op.parts_max < 2) return;
  launch_dependent(decode::merge_partials<1, MlaAttention>,
                   dim3(decode::merge_blocks<float4>(1), static_cast<unsigned>(units)), decode::kMergeThreads,
                   decode::merge_shared_bytes<float4>(1, op.parts_max), stream, op);
}

}  // namespace tandem::cuda
