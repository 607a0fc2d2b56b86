// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Rows in f32 on their way into MFA attention: queries into tiles, keys and values into pages. A warp has a head. Reads
// and writes each byte once; bound by launch and latency at decode sizes.
#include "ops/cuda/attention/mfa_attention.h"
#include "ops/cuda/attention/mfa_lane.cuh"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/ptx/dependent_launch.cuh"

namespace tandem::cuda {

namespace {

constexpr int kQueryWarps = 8;

// Grid: (rows · units, tiles' heads / kQueryWarps).
__global__ void __launch_bounds__(32 * kQueryWarps) store_queries(const __grid_constant__ MfaQueries op) {
  const auto at = static_cast<std::int32_t>(blockIdx.x);  // row and unit
  const std::int32_t row = at / op.units.of_row(), unit = at % op.units.of_row();
  const int head = static_cast<int>(blockIdx.y) * kQueryWarps + static_cast<int>(threadIdx.x) / 32;
  ptx::wait_for_previous_kernel();
  ptx::let_next_kernel_start();
  Lane lane{};
  if (head < op.units.heads(unit))
    lane = load_anywhere(op.q + row * op.q_stride + (op.units.first_head(unit) + head) * MfaPage::kDim);
  std::uint8_t* tiles = op.tiles + static_cast<std::size_t>(at) * 2 * mfa_query_term_bytes(op.cache);
  if (op.cache == MfaCache::kBf16)
    store_query_bf16(tiles, head, lane);
  else
    store_query(tiles, op.scales + at * MfaPage::kHeads, head, lane);
}

// Grid: (rows, key heads); a warp each for K and V.
__global__ void __launch_bounds__(64) store_tokens(const __grid_constant__ MfaAppend op) {
  const auto row = static_cast<std::int32_t>(blockIdx.x), head = static_cast<std::int32_t>(blockIdx.y);
  ptx::wait_for_previous_kernel();
  ptx::let_next_kernel_start();
  const std::int32_t slot = op.slots[row], token = slot % MfaPage::kTokens;
  std::uint8_t* page =
      op.pages + static_cast<std::size_t>(slot / MfaPage::kTokens) * op.page_stride + head * mfa_page_bytes(op.cache);
  if (threadIdx.x < 32)
    store_key_of(op.cache, page, token, load_anywhere(op.k + row * op.k_stride + head * MfaPage::kDim));
  else
    store_value_of(op.cache, page, token, load_anywhere(op.v + row * op.v_stride + head * MfaPage::kDim));
}

}  // namespace

void run(const MfaQueries& op, Stream stream) {
  if (op.rows == 0) return;
  const dim3 grid(static_cast<unsigned>(op.rows * op.units.of_row()), MfaUnits::kHeads / kQueryWarps);
  launch_dependent(store_queries, grid, 32 * kQueryWarps, 0, stream, op);
}

void run(const MfaAppend& op, Stream stream) {
  if (op.rows == 0) return;
  const dim3 grid(static_cast<unsigned>(op.rows), static_cast<unsigned>(op.kv_heads));
  launch_dependent(store_tokens, grid, 64, 0, stream, op);
}

}  // namespace tandem::cuda
