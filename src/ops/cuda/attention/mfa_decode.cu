// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/attention/mfa_decode.cuh"
#include "ops/cuda/attention/mfa_decode_bf16.cuh"
#include "ops/cuda/attention/mfa_merge.cuh"
#include "ops/cuda/launch.cuh"

namespace tandem::cuda {

void run(const MfaDecode& op, Stream stream) {
  if (op.blocks == 0) return;
  const dim3 blocks(static_cast<unsigned>(op.blocks));
  if (op.cache == MfaCache::kBf16)
    launch_dependent(mfa::bf16::decode, blocks, mfa::kThreads, sizeof(mfa::bf16::Shared) + 1023, stream, op);
  else
    launch_dependent(mfa::decode, blocks, mfa::kThreads, sizeof(mfa::Shared) + 1023, stream, op);
  if (op.merge_count == 0) return;
  const auto merges = static_cast<unsigned>(op.merge_count);
  // Few sequences of many pieces leave too few threads otherwise. Bits depend on it, so not in deterministic mode.
  if (!op.deterministic && op.merge_count_max > 16)
    launch_dependent(mfa::merge_partials<8>, dim3(128, merges), mfa::kMergeThreads,
                     mfa::merge_shared_bytes(8, op.merge_count_max), stream, op);
  else
    launch_dependent(mfa::merge_partials<1>, dim3(16, merges), mfa::kMergeThreads,
                     mfa::merge_shared_bytes(1, op.merge_count_max), stream, op);
}

}  // namespace tandem::cuda
