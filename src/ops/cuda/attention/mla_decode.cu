// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/attention/mla_decode.cuh"
#include "ops/cuda/launch.cuh"

namespace tandem::cuda {

void run(const MlaDecode& op, Stream stream) {
  if (op.work.blocks == 0) return;
  launch_dependent(mla::attend<MlaDecode>, dim3(static_cast<unsigned>(mla::kHalves * op.work.blocks)), mla::kThreads,
                   sizeof(mla::Shared), stream, op);
  run(DecodeMerging{.out = op.out, .work = op.work, .shape = kMlaMergeShape}, stream);
}

}  // namespace tandem::cuda
