// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/attention/mfa_decode.cuh"
#include "ops/cuda/attention/mfa_decode_bf16.cuh"
#include "ops/cuda/launch.cuh"

namespace tandem::cuda {

void run(const MfaDecode& op, Stream stream) {
  if (op.work.blocks == 0) return;
  const dim3 blocks(static_cast<unsigned>(op.work.blocks));
  if (op.cache == MfaCache::kBf16)
    launch_dependent(mfa::bf16::attend<1, MfaDecode>, blocks, mfa::kThreads, sizeof(mfa::bf16::Shared<1>), stream, op);
  else
    launch_dependent(mfa::attend<MfaDecode>, blocks, mfa::kThreads, sizeof(mfa::Shared), stream, op);
  run(DecodeMerging{.out = op.out, .work = op.work, .shape = {}}, stream);
}

}  // namespace tandem::cuda
