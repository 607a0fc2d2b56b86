// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Four blocks a row: each warp of a block takes two query heads, and a ninth of the first block the key and the value.
// A lane holds dims 4 lane … 4 lane + 3 and the same 128 on, so that a pair of the rotary embedding is in one lane.
// Bound by launch and latency at decode sizes; reads and writes each byte once.
#include <cuda_bf16.h>

#include "ops/cuda/attention/mfa_lane.cuh"
#include "ops/cuda/attention/mfa_prepare.h"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/ptx/dependent_launch.cuh"
#include "ops/cuda/ptx/e4m3.cuh"

namespace tandem::cuda {

namespace {

constexpr int kQueryWarps = 8, kBlocksOfRow = 4;
constexpr int kHeadsOfWarp = MfaPage::kHeads / kQueryWarps / kBlocksOfRow;
static_assert(kHeadsOfWarp * kQueryWarps * kBlocksOfRow == MfaPage::kHeads);
constexpr int kPrepareThreads = 32 * (kQueryWarps + 1);

struct Rotation {
  float cosine[4], sine[4];

  __device__ explicit Rotation(const float (&angle)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) sincosf(angle[i], &sine[i], &cosine[i]);
  }
};

__device__ void rotate(Lane& lane, const Rotation& r) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float a = lane.x[i], b = lane.x[i + 4];
    lane.x[i] = a * r.cosine[i] - b * r.sine[i];
    lane.x[i + 4] = b * r.cosine[i] + a * r.sine[i];
  }
}

template <class T>
__global__ void __launch_bounds__(kPrepareThreads) prepare(const __grid_constant__ MfaPrepare op) {
  const int row = blockIdx.x, warp = threadIdx.x / 32, part = blockIdx.y;
  float angle[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) angle[i] = static_cast<float>(op.positions[row]) * op.inv_freq[Lane::dim(i)];
  ptx::wait_for_previous_kernel();
  ptx::let_next_kernel_start();
  if (warp == kQueryWarps && part > 0) return;
  if (warp < kQueryWarps) {
    if (op.q == nullptr) return;
    const T* q = static_cast<const T*>(op.q) + row * op.q_stride;
    std::uint8_t* tiles = op.q_tiles + static_cast<std::size_t>(row) * 2 * MfaPage::kQueryTileBytes;
    const int first = (part * kQueryWarps + warp) * kHeadsOfWarp;
    Lane lanes[kHeadsOfWarp];
#pragma unroll
    for (int i = 0; i < kHeadsOfWarp; ++i) lanes[i] = load(q + (first + i) * MfaPage::kDim);
    const Rotation turn(angle);  // while they come
#pragma unroll
    for (int i = 0; i < kHeadsOfWarp; ++i) {
      rotate(lanes[i], turn);
      if (op.cache == MfaCache::kBf16)
        store_key_bf16(tiles, first + i, lanes[i]);
      else
        store_query(tiles, op.q_scales + row * MfaPage::kHeads, first + i, lanes[i]);
    }
    return;
  }
  const std::int32_t slot = op.slots[row];
  std::uint8_t* page = op.pages + static_cast<std::size_t>(slot / MfaPage::kTokens) * op.page_stride;
  const int token = slot % MfaPage::kTokens;
  Lane key = load(static_cast<const T*>(op.k) + row * op.k_stride);
  rotate(key, Rotation(angle));
  store_key_of(op.cache, page, token, key);
  store_value_of(op.cache, page, token, load(static_cast<const T*>(op.v) + row * op.v_stride));
}

// A block a token, a warp each for K and V.
__global__ void import_page(const __grid_constant__ MfaImportPage op) {
  ptx::wait_for_previous_kernel();
  const int token = blockIdx.x;
  if (threadIdx.x < 32)
    store_key_of(op.cache, op.page, token, load(op.canonical + token * MfaPage::kDim));
  else
    store_value_of(op.cache, op.page, token, load(op.canonical + (MfaPage::kTokens + token) * MfaPage::kDim));
}

__global__ void export_page(const __grid_constant__ MfaExportPage op) {
  ptx::wait_for_previous_kernel();
  const int token = blockIdx.x;
  const bool is_key = threadIdx.x < 32;
  float* to = op.canonical + (is_key ? token : MfaPage::kTokens + token) * MfaPage::kDim;
  if (op.cache == MfaCache::kBf16) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int dim = Lane::dim(i);
      const int at = is_key ? MfaPageBf16::key_offset(token, dim) : MfaPageBf16::value_offset(dim, token);
      to[dim] = __bfloat162float(*reinterpret_cast<const __nv_bfloat16*>(op.page + at));
    }
    return;
  }
  const float* scales = reinterpret_cast<const float*>(op.page + MfaPage::kScalesAt);
  float scale = scales[token];
  if (!is_key) {  // 1 / V's scale is stored; eight bits of it are enough to have it back
    const float inverse = scales[128 + token];
    scale = inverse == 0 ? 0 : __bfloat162float(__float2bfloat16_rn(1.f / inverse));
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int dim = Lane::dim(i);
    const std::uint8_t code = op.page[is_key ? MfaPage::key_offset(token, dim) : MfaPage::value_offset(dim, token)];
    to[dim] = ptx::from_e4m3(code).x * scale;
  }
}

}  // namespace

void run(const MfaPrepare& op, Stream stream) {
  if (op.rows == 0) return;
  const dim3 grid(static_cast<unsigned>(op.rows), op.q == nullptr ? 1 : kBlocksOfRow);
  launch_dependent(op.bf16 ? prepare<__nv_bfloat16> : prepare<float>, grid, kPrepareThreads, 0, stream, op);
}

void run(const MfaExportPage& op, Stream stream) {
  launch_dependent(export_page, dim3(MfaPage::kTokens), 64, 0, stream, op);
}

void run(const MfaImportPage& op, Stream stream) {
  launch_dependent(import_page, dim3(MfaPage::kTokens), 64, 0, stream, op);
}

}  // namespace tandem::cuda
