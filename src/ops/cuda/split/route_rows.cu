// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A cluster of eight blocks has 16 rows, each block an eighth of hidden, each of its four warps a quarter of that.
// Bound by latency: 240 rows are 120 blocks that read 0.7 MB of weights from the L2 cache.
#include "base/check.h"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/ptx/cluster.cuh"
#include "ops/cuda/ptx/dependent_launch.cuh"
#include "ops/cuda/ptx/mma.cuh"
#include "ops/cuda/reduce.cuh"
#include "ops/cuda/split/route_rows.h"
#include "ops/cuda/split/seal.cuh"

namespace tandem::cuda {

namespace {

constexpr int kCluster = 8, kWarps = 8, kThreads = 32 * kWarps, kRows = 16;
constexpr int kStepsAtOnce = 7;  // 16 of hidden each, on their way together

// Logits of 16 rows over this warp's part of hidden.
template <int kTiles>
__device__ void multiply(const RouteRows& op, int first_row, int k_begin, int k_end, float (&d)[kTiles][4]) {
  const int lane = static_cast<int>(threadIdx.x) % 32, group = lane / 4, quad = lane % 4;
  const std::uint16_t* x[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = min(first_row + group + 8 * r, op.rows - 1);
    x[r] = op.x + static_cast<std::size_t>(row) * op.hidden + 4 * quad;
  }
  const std::uint16_t* weight = op.weight + static_cast<std::size_t>(group) * op.hidden + 4 * quad;
#pragma unroll kStepsAtOnce
  for (int k = k_begin; k < k_end; k += 16) {
    const uint2 a = *reinterpret_cast<const uint2*>(x[0] + k), b = *reinterpret_cast<const uint2*>(x[1] + k);
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      const uint2 w = *reinterpret_cast<const uint2*>(weight + static_cast<std::size_t>(tile) * 8 * op.hidden + k);
      ptx::mma_m16n8k16(d[tile], a.x, b.x, a.y, b.y, w.x, w.y);
    }
  }
}

struct Sums {
  float warp[kWarps][kRows][RouteRows::kExpertsMax];
  float4 block[kRows][RouteRows::kExpertsMax / 4];
};

template <int kTiles>
__device__ void sum_of_block(Sums& s, const float (&d)[kTiles][4]) {
  const int lane = static_cast<int>(threadIdx.x) % 32, group = lane / 4, quad = lane % 4;
  float(*own)[RouteRows::kExpertsMax] = s.warp[threadIdx.x / 32];
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile)
#pragma unroll
    for (int i = 0; i < 4; ++i) own[group + 8 * (i / 2)][8 * tile + 2 * quad + i % 2] = d[tile][i];
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < kRows * 8 * kTiles; i += kThreads) {
    const int row = i / (8 * kTiles), expert = i % (8 * kTiles);
    float sum = 0;
#pragma unroll
    for (int warp = 0; warp < kWarps; ++warp) sum += s.warp[warp][row][expert];
    reinterpret_cast<float*>(s.block[row])[expert] = sum;
  }
}

// All of the cluster's sums become the first block's.
__device__ void sum_of_cluster(Sums& s) {
  for (int i = static_cast<int>(threadIdx.x); i < kRows * RouteRows::kExpertsMax / 4; i += kThreads) {
    float4* at = &s.block[0][0] + i;
    float4 x[kCluster];
#pragma unroll
    for (int rank = 0; rank < kCluster; ++rank) x[rank] = ptx::load_from_cluster(at, rank);
    float4 sum = x[0];
#pragma unroll
    for (int rank = 1; rank < kCluster; ++rank)
      sum = make_float4(sum.x + x[rank].x, sum.y + x[rank].y, sum.z + x[rank].z, sum.w + x[rank].w);
    *at = sum;
  }
  __syncthreads();
}

// A warp: lane has experts lane and lane + 32.
__device__ void choose(const RouteRows& op, int row, const float* logits) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  constexpr float kNone = -__builtin_huge_valf();
  float x[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) x[i] = lane + 32 * i < op.experts ? logits[lane + 32 * i] : kNone;
  const float largest = warp_max(fmaxf(x[0], x[1]));
  const float sum = warp_sum(__expf(x[0] - largest) + __expf(x[1] - largest));
  for (int k = 0; k < op.top_k; ++k) {
    float best = x[0];
    int id = lane;
    if (x[1] > best) best = x[1], id = lane + 32;
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
      const float other = __shfl_xor_sync(~0u, best, distance);
      const int other_id = __shfl_xor_sync(~0u, id, distance);
      if (other > best || (other == best && other_id < id)) best = other, id = other_id;
    }
    if (lane == 0) {
      op.ids[row * op.top_k + k] = id;
      op.weights[row * op.top_k + k] = __expf(best - largest) / sum;
    }
    if (id % 32 == lane) x[id / 32] = kNone;
  }
}

template <int kTiles>
__global__ void __launch_bounds__(kThreads) route_rows(const __grid_constant__ RouteRows op) {
  __shared__ Sums s;
  const int rank = static_cast<int>(blockIdx.x) % kCluster, first_row = static_cast<int>(blockIdx.x) / kCluster * kRows;
  ptx::wait_for_previous_kernel();
  ptx::let_next_kernel_start();
  float d[kTiles][4] = {};
  const int part = rank * kWarps + static_cast<int>(threadIdx.x) / 32, length = op.hidden / (kCluster * kWarps);
  multiply(op, first_row, part * length, (part + 1) * length, d);
  sum_of_block(s, d);
  ptx::sync_cluster();
  if (rank == 0) {
    sum_of_cluster(s);
    for (int row = static_cast<int>(threadIdx.x) / 32; row < kRows; row += kWarps)
      if (first_row + row < op.rows) choose(op, first_row + row, reinterpret_cast<const float*>(s.block[row]));
  } else if (blockIdx.x == 1 && threadIdx.x == 0) {
    check_seal(op.returned);
    write_seal(op.seal);
  }
  ptx::sync_cluster();  // nobody ends while the first reads
}

__global__ void seal_hand_over(const __grid_constant__ SealHandOver op) {
  ptx::wait_for_previous_kernel();
  ptx::let_next_kernel_start();
  check_seal(op.returned);
  write_seal(op.seal);
}

}  // namespace

void run(const RouteRows& op, Stream stream) {
  if (op.rows == 0) return;
  using Kernel = void (*)(RouteRows);
  constexpr Kernel kKernels[] = {route_rows<1>, route_rows<2>, route_rows<3>, route_rows<4>,
                                 route_rows<5>, route_rows<6>, route_rows<7>, route_rows<8>};
  TANDEM_CHECK(op.hidden % (16 * kCluster * kWarps) == 0 && op.experts % 8 == 0 && op.experts > 0 &&
                   op.experts <= RouteRows::kExpertsMax && op.top_k <= op.experts,
               "the shape of a router");
  launch_dependent(kKernels[op.experts / 8 - 1], dim3(static_cast<unsigned>((op.rows + kRows - 1) / kRows * kCluster)),
                   kThreads, 0, stream, op, kCluster);
}

void run(const SealHandOver& op, Stream stream) {
  launch_dependent(seal_hand_over, dim3(1), 1, 0, stream, op);
}

}  // namespace tandem::cuda
