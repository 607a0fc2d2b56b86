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
  const auto merge = [&](auto kernel, int lanes) {
    const auto blocks = static_cast<unsigned>(decode::kElementsOfUnit<uint4> * lanes / decode::kMergeThreads);
    launch_dependent(kernel, dim3(blocks, merges, units), decode::kMergeThreads,
                     decode::merge_shared_bytes<uint4>(lanes, op.work.merge_count_max), stream, op);
  };
  if (op.work.deterministic || op.work.merge_count_max < 12)
    merge(decode::merge_partials<1, DecodeMerging>, 1);
  else if (op.work.merge_count_max < 48)
    merge(decode::merge_partials<4, DecodeMerging>, 4);
  else
    merge(decode::merge_partials<16, DecodeMerging>, 16);
}

}  // namespace tandem::cuda
