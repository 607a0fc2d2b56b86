// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/attention/decode_merge.cuh"
#include "ops/cuda/launch.cuh"

namespace tandem::cuda {

namespace {

template <int kLanes>
void merge(const DecodeMerging& op, Stream stream) {
  const dim3 grid(decode::merge_blocks<uint4>(kLanes), static_cast<unsigned>(op.work.merge_count),
                  static_cast<unsigned>(op.shape.units()));
  launch_dependent(decode::merge_partials<kLanes, DecodeMerging>, grid, decode::kMergeThreads,
                   decode::merge_shared_bytes<uint4>(kLanes, op.work.merge_count_max), stream, op);
}

}  // namespace

// Many pieces of a sequence are added by several threads each, which few pieces do not repay: 16 are added sooner by 4
// than by 16, 86 by 16. Bits depend on it, so not in deterministic mode.
void run(const DecodeMerging& op, Stream stream) {
  if (op.work.merge_count == 0) return;
  if (op.work.deterministic || op.work.merge_count_max < 12) return merge<1>(op, stream);
  if (op.work.merge_count_max < 48) return merge<4>(op, stream);
  merge<16>(op, stream);
}

}  // namespace tandem::cuda
