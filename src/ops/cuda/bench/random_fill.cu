// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include <cuda_bf16.h>
#include <cuda_fp8.h>

#include "ops/cuda/attention/mfa_page.h"
#include "ops/cuda/bench/random_fill.h"
#include "ops/cuda/launch.cuh"

namespace tandem::cuda {

namespace {

// The sum of twelve uniform numbers, from a hash of the index: deviation 1.
__device__ float normal(std::uint64_t index, std::uint32_t seed) {
  std::uint64_t x = index + (static_cast<std::uint64_t>(seed) << 40);
  float sum = 0;
#pragma unroll
  for (int i = 0; i < 3; ++i) {
    x += 0x9e3779b97f4a7c15u;
    std::uint64_t z = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z ^= z >> 31;
#pragma unroll
    for (int k = 0; k < 4; ++k) sum += static_cast<float>(z >> (16 * k) & 0xffffu) * (1.f / 65536.f);
  }
  return sum - 6.f + 12.f * (.5f / 65536.f);
}

__global__ void fill_normal(const __grid_constant__ FillNormal op) {
  for (std::int64_t i = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x; i < op.rows * op.columns;
       i += std::int64_t{gridDim.x} * blockDim.x) {
    const float scale = exp2f(op.spread * normal(static_cast<std::uint64_t>(i / op.columns), op.seed ^ 0x5555u));
    op.out[i] = (normal(static_cast<std::uint64_t>(i), op.seed) + op.mean) * scale;
  }
}

__global__ void fill_e4m3(const __grid_constant__ FillE4m3 op) {
  for (std::int64_t i = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x; i < op.bytes;
       i += std::int64_t{gridDim.x} * blockDim.x)
    op.out[i] = __nv_fp8_e4m3(normal(static_cast<std::uint64_t>(i), op.seed) * 64.f).__x;
}

__global__ void fill_normal_bf16(const __grid_constant__ FillNormalBf16 op) {
  for (std::int64_t i = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x; i < op.values;
       i += std::int64_t{gridDim.x} * blockDim.x)
    op.out[i] = __bfloat16_as_ushort(__float2bfloat16(normal(static_cast<std::uint64_t>(i), op.seed) * op.deviation));
}

// Codes have the deviation 64.
__global__ void fill_mfa_scales(const __grid_constant__ FillMfaPages op) {
  for (std::int64_t page = blockIdx.x; page < op.count; page += gridDim.x) {
    float* scales = reinterpret_cast<float*>(op.pages + page * MfaPage::kBytes + MfaPage::kScalesAt);
    const int token = static_cast<int>(threadIdx.x);
    scales[token] = 1.f / 64;
    scales[64 + token] = -6;
    scales[128 + token] = 64;
  }
}

}  // namespace

void run(const FillNormal& op, Stream stream) {
  fill_normal<<<2048, 256, 0, stream>>>(op);
  TANDEM_CUDA_CHECK(cudaGetLastError());
}

void run(const FillNormalBf16& op, Stream stream) {
  fill_normal_bf16<<<2048, 256, 0, stream>>>(op);
  TANDEM_CUDA_CHECK(cudaGetLastError());
}

void run(const FillMfaPages& op, Stream stream) {
  run(FillE4m3{.out = op.pages, .bytes = op.count * MfaPage::kBytes, .seed = op.seed}, stream);
  fill_mfa_scales<<<2048, MfaPage::kTokens, 0, stream>>>(op);
  TANDEM_CUDA_CHECK(cudaGetLastError());
}

void run(const FillE4m3& op, Stream stream) {
  fill_e4m3<<<2048, 256, 0, stream>>>(op);
  TANDEM_CUDA_CHECK(cudaGetLastError());
}

}  // namespace tandem::cuda
