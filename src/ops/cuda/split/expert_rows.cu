// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "base/check.h"
#include "ops/cuda/gemm/fp8_tile.h"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/ptx/dependent_launch.cuh"
#include "ops/cuda/split/eight_bf16.cuh"
#include "ops/cuda/split/expert_rows.h"
#include "ops/cuda/split/seal.cuh"

namespace tandem::cuda {

namespace {

constexpr int kPlanThreads = 1024, kGatherThreads = 128, kCombineThreads = 256;

__device__ inline std::int32_t id_of(const PlanExpertRows& op, std::int32_t token, std::int32_t slot) {
  const std::int32_t k = op.tokens.top_k;
  return token < op.tokens.rows ? op.first_ids[token * k + slot] : op.ids[(token - op.tokens.rows) * k + slot];
}

// The number of threads before this one with has set; total becomes that of the block.
__device__ int count_before(bool has, int* warps, int& total) {
  const unsigned votes = __ballot_sync(~0u, has);
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  if (lane == 0) warps[warp] = __popc(votes);
  __syncthreads();
  int before = __popc(votes & ((1u << lane) - 1));
  total = 0;
  for (int w = 0; w < kPlanThreads / 32; ++w) {
    before += w < warp ? warps[w] : 0;
    total += warps[w];
  }
  __syncthreads();
  return before;
}

// A block a routed expert: its rows, in the order of tokens. A token has an expert at most once.
__device__ void plan_routed(const PlanExpertRows& op, int index, int* warps) {
  const std::int32_t expert = op.share.first + index, k = op.tokens.top_k;
  std::int32_t next = index * op.share.row_stride;
  const std::int32_t end = next + op.share.row_stride;
  for (std::int32_t begin = 0; begin < op.tokens.all(); begin += kPlanThreads) {
    const std::int32_t token = begin + static_cast<std::int32_t>(threadIdx.x);
    std::int32_t slot = -1;
    if (token < op.tokens.all())
      for (std::int32_t s = 0; s < k; ++s)
        if (id_of(op, token, s) == expert) slot = s;
    int total = 0;
    const std::int32_t row = next + count_before(slot >= 0, warps, total);
    if (slot >= 0 && row < end) {
      op.source[row] = token;
      if (token < op.tokens.rail()) op.place[token * (k + 1) + slot] = row;
    }
    next += total;
  }
  if (threadIdx.x == 0) op.row_count[index] = min(next, end) - index * op.share.row_stride;
}

// The last block: the shared expert, and places of rows that are not this GPU's.
__device__ void plan_others(const PlanExpertRows& op) {
  const std::int32_t k = op.tokens.top_k, shared = op.share.shared_rows, first = op.share.count * op.share.row_stride;
  for (std::int32_t token = static_cast<std::int32_t>(threadIdx.x); token < op.tokens.rail(); token += kPlanThreads) {
    const std::int32_t row = token % op.tokens.rows, block = token / op.tokens.rows;
    std::int32_t at = PlanExpertRows::kNobody;
    if (row < shared) {
      at = first + block * shared + row;
      op.source[at] = token;
    }
    op.place[token * (k + 1) + k] = at;
    for (std::int32_t slot = 0; slot < k; ++slot) {
      const std::int32_t id = id_of(op, token, slot);
      if (id >= op.share.first && id < op.share.first + op.share.count) continue;
      const bool in_server = id >= op.share.server_first && id < op.share.server_first + op.share.server_count;
      op.place[token * (k + 1) + slot] = in_server && op.arrived_rows > 0
                                             ? PlanExpertRows::kArrived - (token * k + slot) % op.arrived_rows
                                             : PlanExpertRows::kNobody;
    }
  }
  if (threadIdx.x > 0) return;
  if (shared > 0) op.row_count[op.share.count] = op.tokens.rail_blocks * shared;
  check_seal(op.hand_over);
}

__global__ void __launch_bounds__(kPlanThreads) plan_expert_rows(const __grid_constant__ PlanExpertRows op) {
  __shared__ int warps[kPlanThreads / 32];
  ptx::wait_for_previous_kernel();
  ptx::let_next_kernel_start();
  if (static_cast<int>(blockIdx.x) < op.share.count)
    plan_routed(op, static_cast<int>(blockIdx.x), warps);
  else
    plan_others(op);
}

// A block a row of an expert: 16 bytes a thread at a time.
__global__ void __launch_bounds__(kGatherThreads) gather_expert_rows(const __grid_constant__ GatherExpertRows op) {
  ptx::wait_for_previous_kernel();
  ptx::let_next_kernel_start();
  const std::int32_t expert = static_cast<std::int32_t>(blockIdx.y), index = static_cast<std::int32_t>(blockIdx.x);
  if (index >= op.row_count[expert]) return;
  const std::int32_t to = expert * op.share.row_stride + index, token = op.source[to];
  const bool of_rail = token < op.tokens.rail();
  const std::uint8_t* block = op.rail + token / op.tokens.rows * op.rail_block_bytes;
  const std::int32_t blocks = op.columns / Fp8Tile::kDepth;
  const Fp8RowsView from =
      of_rail ? Fp8RowsView{block, reinterpret_cast<const float*>(block + op.rail_rows * op.columns), op.rail_rows}
              : op.arrived;
  const std::int32_t row = of_rail ? token % op.tokens.rows : to;
  const std::int64_t rows = static_cast<std::int64_t>(op.share.experts()) * op.share.row_stride;
  for (int i = static_cast<int>(threadIdx.x); i < blocks * 8; i += kGatherThreads) {
    const int k = i / 8, chunk = i % 8;
    const std::size_t a =
        (k * (from.rows / Fp8Tile::kRows) + row / Fp8Tile::kRows) * static_cast<std::size_t>(Fp8Tile::kBytes);
    const std::size_t b =
        (k * (rows / Fp8Tile::kRows) + to / Fp8Tile::kRows) * static_cast<std::size_t>(Fp8Tile::kBytes);
    *reinterpret_cast<uint4*>(op.tiles + b + Fp8Tile::offset(to % Fp8Tile::kRows, 16 * chunk)) =
        *reinterpret_cast<const uint4*>(from.tiles + a + Fp8Tile::offset(row % Fp8Tile::kRows, 16 * chunk));
  }
  for (int k = static_cast<int>(threadIdx.x); k < blocks; k += kGatherThreads)
    op.scales[k * rows + to] = from.scales[k * from.rows + row];
}

// A block a token.
__global__ void __launch_bounds__(kCombineThreads) combine_expert_rows(const __grid_constant__ CombineExpertRows op) {
  ptx::wait_for_previous_kernel();
  ptx::let_next_kernel_start();
  const std::int32_t token = static_cast<std::int32_t>(blockIdx.x), k = op.tokens.top_k;
  const std::int32_t* place = op.place + token * (k + 1);
  const float* weights =
      token < op.tokens.rows ? op.first_weights + token * k : op.weights + (token - op.tokens.rows) * k;
  std::uint16_t* out = op.out + token / op.tokens.rows * op.out_block_stride +
                       static_cast<std::size_t>(token % op.tokens.rows) * op.columns;
  for (int i = static_cast<int>(threadIdx.x); i < op.columns / 8; i += kCombineThreads) {
    float sum[8] = {};
    for (std::int32_t slot = 0; slot <= k; ++slot) {
      const std::int32_t at = place[slot];
      if (at == PlanExpertRows::kNobody) continue;
      const std::uint16_t* row =
          at >= 0 ? op.own + static_cast<std::size_t>(at) * op.columns
                  : op.arrived + static_cast<std::size_t>(PlanExpertRows::kArrived - at) * op.columns;
      add(sum, reinterpret_cast<const EightBf16*>(row)[i], slot < k ? weights[slot] : 1.f);
    }
    reinterpret_cast<EightBf16*>(out)[i] = rounded(sum);
  }
  if (token == 0 && threadIdx.x == 0) write_seal(op.seal);
}

}  // namespace

void run(const PlanExpertRows& op, Stream stream) {
  TANDEM_CHECK(op.share.shared_rows <= op.tokens.rows && op.share.row_stride % Fp8Tile::kRows == 0 &&
                   op.tokens.rail_blocks * op.share.shared_rows <= op.share.row_stride,
               "the share of an FFN GPU");
  launch_dependent(plan_expert_rows, dim3(static_cast<unsigned>(op.share.count + 1)), kPlanThreads, 0, stream, op);
}

void run(const GatherExpertRows& op, Stream stream) {
  const dim3 grid(static_cast<unsigned>(op.share.row_stride), static_cast<unsigned>(op.share.experts()));
  launch_dependent(gather_expert_rows, grid, kGatherThreads, 0, stream, op);
}

void run(const CombineExpertRows& op, Stream stream) {
  if (op.tokens.rail() == 0) return;
  launch_dependent(combine_expert_rows, dim3(static_cast<unsigned>(op.tokens.rail())), kCombineThreads, 0, stream, op);
}

}  // namespace tandem::cuda
