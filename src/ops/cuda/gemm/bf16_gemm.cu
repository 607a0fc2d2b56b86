// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "base/check.h"
#include "ops/cuda/gemm/bf16_gemm.cuh"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/reduce.cuh"
#include "ops/cuda/terms.cuh"

namespace tandem::cuda {

namespace {

template <int kAtoms>
void launch(const Bf16Gemm& op, Stream stream) {
  using V = bf16_gemm::Variant<kAtoms>;
  const std::int64_t columns = Bf16Tile::tiles(op.n);
  const std::int64_t tiles = op.row_tiles ? columns : columns * ((op.rows + V::kRows - 1) / V::kRows);
  const std::int64_t lists = op.row_tiles ? op.row_tile_count : 1;
  const int split = bf16_split(op.parts.count, tiles * lists);
  const dim3 grid(static_cast<unsigned>(tiles * split), static_cast<unsigned>(lists));
  launch_dependent(bf16_gemm::multiply_kernel<V>, grid, bf16_gemm::kThreads, sizeof(bf16_gemm::Shared<V>), stream,
                   bf16_gemm::Launch{op, split}, split);
}

// ---- cutting into terms

constexpr int kSplitThreads = 256;

// A thread has eight of k of one row: 16 bytes of each term.
__device__ inline void split_rows(const SplitTerms& op) {
  const int depths = (op.k + Bf16Tile::kDepth - 1) / Bf16Tile::kDepth;
  const int atoms = (op.rows + Bf16Tile::kAtomRows - 1) / Bf16Tile::kAtomRows;
  const int piece = static_cast<int>(blockIdx.y) * kSplitThreads + static_cast<int>(threadIdx.x);
  const int row = static_cast<int>(blockIdx.x), depth = piece / 8, k = piece * 8;
  if (depth >= depths) return;
  float v[8];
  const float* from = op.x + row * op.x_stride + k;
  if (row < op.rows && k + 8 <= op.k && reinterpret_cast<std::uintptr_t>(from) % 16 == 0) {
    const float4 low = reinterpret_cast<const float4*>(from)[0], high = reinterpret_cast<const float4*>(from)[1];
    v[0] = low.x, v[1] = low.y, v[2] = low.z, v[3] = low.w;
    v[4] = high.x, v[5] = high.y, v[6] = high.z, v[7] = high.w;
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i) v[i] = row < op.rows && k + i < op.k ? from[i] : 0.0f;
  }
  std::uint32_t terms[Bf16Tile::kTerms][4];
  split(v, terms);
  const std::size_t atom = static_cast<std::size_t>(depth) * atoms + row / Bf16Tile::kAtomRows;
  std::byte* to = op.atoms + atom * Bf16Tile::kTerms * Bf16Tile::kAtomBytes +
                  Bf16Tile::offset(row % Bf16Tile::kAtomRows, k % Bf16Tile::kDepth);
#pragma unroll
  for (int term = 0; term < Bf16Tile::kTerms; ++term)
    *reinterpret_cast<uint4*>(to + term * Bf16Tile::kAtomBytes) =
        make_uint4(terms[term][0], terms[term][1], terms[term][2], terms[term][3]);
}

// The tiles of rows of one expert after those of another; a block, in which a thread has neighbouring experts.
__device__ inline void list_row_tiles(const SplitTerms& op) {
  __shared__ std::int32_t warps[kSplitThreads / 32];
  constexpr int kMine = kWeightsOfLaunchMax / kSplitThreads;
  std::int32_t mine[kMine], sum = 0, total = 0;
#pragma unroll
  for (int i = 0; i < kMine; ++i) {
    const int e = static_cast<int>(threadIdx.x) * kMine + i;
    const std::int32_t begin = e < op.experts ? op.offsets[e] : 0, end = e < op.experts ? op.offsets[e + 1] : 0;
    const std::int32_t of_atom = begin / Bf16Tile::kAtomRows * Bf16Tile::kAtomRows;
    mine[i] = begin == end ? 0 : (end - of_atom + op.tile_rows - 1) / op.tile_rows;
    sum += mine[i];
  }
  std::int32_t at = block_scan_sum(sum, warps, total) - sum;
#pragma unroll
  for (int i = 0; i < kMine; ++i) {
    const int e = static_cast<int>(threadIdx.x) * kMine + i;
    if (mine[i] == 0) continue;
    const std::int32_t begin = op.offsets[e], end = op.offsets[e + 1], atom = begin / Bf16Tile::kAtomRows;
    for (std::int32_t t = 0; t < mine[i]; ++t)
      op.row_tiles[at++] = {e, atom + t * op.tile_rows / Bf16Tile::kAtomRows, begin, end};
  }
  for (std::int32_t t = total + static_cast<int>(threadIdx.x); t < op.row_tile_count; t += kSplitThreads)
    op.row_tiles[t] = {-1, 0, 0, 0};
}

__global__ void __launch_bounds__(kSplitThreads) split_terms(const __grid_constant__ SplitTerms op) {
  ptx::wait_for_previous_kernel();
  ptx::let_next_kernel_start();
  if (op.offsets && blockIdx.x == gridDim.x - 1) {
    if (blockIdx.y == 0) list_row_tiles(op);
    return;
  }
  split_rows(op);
}

}  // namespace

void run(const Bf16Gemm& op, int tile_rows, Stream stream) {
  if (op.rows == 0 || op.n == 0) return;
  switch (tile_rows) {
    case 8:
      return launch<1>(op, stream);
    case 16:
      return launch<2>(op, stream);
    case 32:
      return launch<4>(op, stream);
    default:
      return launch<8>(op, stream);
  }
}

void run(const SplitTerms& op, Stream stream) {
  if (op.rows == 0) return;
  TANDEM_CHECK(op.experts <= kWeightsOfLaunchMax, "more experts of one layer on one GPU than a launch can name");
  const auto pieces = Bf16Tile::depths(op.k) * 8;
  const dim3 grid(static_cast<unsigned>(Bf16Tile::atoms(op.rows) * Bf16Tile::kAtomRows + (op.offsets ? 1 : 0)),
                  static_cast<unsigned>((pieces + kSplitThreads - 1) / kSplitThreads));
  launch_dependent(split_terms, grid, kSplitThreads, 0, stream, op);
}

}  // namespace tandem::cuda
