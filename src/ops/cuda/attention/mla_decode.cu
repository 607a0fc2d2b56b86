// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/attention/mla_decode.cuh"
#include "ops/cuda/launch.cuh"

namespace tandem::cuda {

void run(const MlaDecode& op, Stream stream) {
  if (op.blocks == 0) return;
  launch_dependent(mla::decode, dim3(static_cast<unsigned>(mla::kHalves * op.blocks)), mla::kThreads,
                   sizeof(mla::Shared), stream, op);
  run(DecodeMerging{.out = op.out,
                    .partials = op.partials,
                    .partial_stats = op.partial_stats,
                    .merges = op.merges,
                    .merge_count = op.merge_count,
                    .merge_count_max = op.merge_count_max,
                    .shape = kMlaMergeShape,
                    .deterministic = op.deterministic},
      stream);
}

}  // namespace tandem::cuda
