// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/attention/mfa_attention.h"

#include <algorithm>

#include "ops/cuda/attention/decode_merge.cuh"
#include "ops/cuda/attention/mfa_decode_bf16.cuh"
#include "ops/cuda/launch.cuh"

namespace tandem::cuda {

// What the merge kernel asks: a unit is a merge.
__device__ inline decode::Merged<float4> merged_of(const MfaAttention& op) {
  const auto unit = static_cast<std::int32_t>(blockIdx.y);
  const RowParts parts(op, unit / op.units.of_row());
  const Partials<float4> first = mfa::partials_of(op, unit * op.parts_max);
  return {parts.count(), 1, first.values, first.stats, MfaPage::kHeads};
}

__device__ inline void store_merged(const MfaAttention& op, int head, int column, float a, float b) {
  mfa::output_of(op, static_cast<std::int32_t>(blockIdx.y)).store(head, column, a, b);
}

void run(const MfaAttention& op, Stream stream) {
  const std::int32_t units = op.rows * op.units.of_row();
  if (units == 0) return;
  const dim3 blocks(static_cast<unsigned>(std::min(op.blocks, units * op.parts_max)));
  if (op.cache == MfaCache::kBf16)
    launch_dependent(mfa::bf16::attend<2, MfaAttention>, blocks, mfa::kThreads, sizeof(mfa::bf16::Shared<2>), stream,
                     op);
  else
    launch_dependent(mfa::attend<MfaAttention>, blocks, mfa::kThreads, sizeof(mfa::Shared), stream, op);
  if (op.parts_max < 2) return;
  launch_dependent(decode::merge_partials<1, MfaAttention>,
                   dim3(decode::merge_blocks<float4>(1), static_cast<unsigned>(units)), decode::kMergeThreads,
                   decode::merge_shared_bytes<float4>(1, op.parts_max), stream, op);
}

}  // namespace tandem::cuda
