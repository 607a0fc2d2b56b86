// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/attention/decode_merge.cuh"
#include "ops/cuda/launch.cuh"

namespace tandem::cuda {

void run(const DecodeMerging& op, Stream stream) {
  if (op.work.merge_count == 0) return;
  const auto merges = static_cast<unsigned>(op.work.merge_count), units = static_cast<unsigned>(op.shape.units());
  // Many pieces of a sequence are added by several threads each, which few pieces do not repay. Bits depend on it, so
  // not in deterministic mode.
  if (!op.work.deterministic && op.work.merge_count_max >= 12)
    launch_dependent(decode::merge_partials<8, DecodeMerging>, dim3(128, merges, units), decode::kMergeThreads,
                     decode::merge_shared_bytes(8, op.work.merge_count_max), stream, op);
  else
    launch_dependent(decode::merge_partials<1, DecodeMerging>, dim3(16, merges, units), decode::kMergeThreads,
                     decode::merge_shared_bytes(1, op.work.merge_count_max), stream, op);
}

}  // namespace tandem::cuda
