// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/attention/decode_merge.cuh"
#include "ops/cuda/launch.cuh"

namespace tandem::cuda {

void run(const DecodeMerging& op, Stream stream) {
  if (op.work.merge_count == 0) return;
  const auto merges = static_cast<unsigned>(op.work.merge_count), units = static_cast<unsigned>(op.shape.units());
  const auto merge = [&]<int kLanes>() {
    launch_dependent(decode::merge_partials<kLanes, DecodeMerging>,
                     dim3(decode::merge_blocks<uint4>(kLanes), merges, units), decode::kMergeThreads,
                     decode::merge_shared_bytes<uint4>(kLanes, op.work.merge_count_max), stream, op);
  };
  // Many pieces of a sequence are added by several threads each, which few pieces do not repay: 16 are added sooner by
  // 4 than by 16, 86 by 16. Bits depend on it, so not in deterministic mode.
  if (op.work.deterministic || op.work.merge_count_max < 12)
    merge.operator()<1>();
  else if (op.work.merge_count_max < 48)
    merge.operator()<4>();
  else
    merge.operator()<16>();
}

}  // namespace tandem::cuda
