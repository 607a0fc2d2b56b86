// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "base/check.h"
#include "ops/cuda/attention/mfa_decode.cuh"
#include "ops/cuda/attention/mfa_decode_bf16.cuh"
#include "ops/cuda/gemm/fp8_quantise.h"
#include "ops/cuda/launch.cuh"

namespace tandem::cuda {

// Partial results are added in rows of bf16, so where there are some, all sequences take that way.
void run(const MfaDecode& op, Stream stream) {
  if (op.work.blocks == 0) return;
  TANDEM_CHECK(
      op.o_tiles == nullptr || (op.sequences > 0 && op.o_tile_rows >= op.sequences && op.o_tile_rows % 64 == 0),
      "where attention's output goes");
  const bool has_partials = op.work.merge_count > 0;
  MfaDecode attend = op;
  if (has_partials) attend.o_tiles = nullptr;
  const dim3 blocks(static_cast<unsigned>(op.work.blocks));
  if (op.cache == MfaCache::kBf16)
    launch_dependent(mfa::bf16::attend<1, MfaDecode>, blocks, mfa::kThreads, sizeof(mfa::bf16::Shared<1>), stream,
                     attend);
  else
    launch_dependent(mfa::attend<MfaDecode>, blocks, mfa::kThreads, sizeof(mfa::Shared), stream, attend);
  if (!has_partials) return;
  run(DecodeMerging{.out = op.out, .work = op.work, .shape = {}}, stream);
  if (op.o_tiles == nullptr) return;
  run(QuantiseTiles{.tiles = op.o_tiles,
                    .scales = op.o_scales,
                    .x = op.out,
                    .bf16 = true,
                    .rows = op.sequences,
                    .columns = MfaPage::kHeads * MfaPage::kDim,
                    .tile_rows = op.o_tile_rows},
      stream);
}

}  // namespace tandem::cuda
