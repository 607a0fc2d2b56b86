// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/attention/mfa_attention.h"
#include "ops/cuda/attention/mfa_lane.cuh"
#include "ops/cuda/attention/mla_attention.h"
#include "ops/cuda/cuda_kv_cache.cuh"
#include "ops/cuda/reduce.cuh"

namespace tandem::cuda {

namespace {

template <class T>
__device__ T rounded(float value) {
  return value;
}
template <>
__device__ __nv_bfloat16 rounded<__nv_bfloat16>(float value) {
  return to_bf16(value);
}

template <class T>
__global__ void append_kv(Pages<T> pages, Rows<float> k, Rows<float> v, const std::int32_t* slots) {
  const std::int32_t block = slots[blockIdx.x] / kBlockTokens, token = slots[blockIdx.x] % kBlockTokens;
  const auto thread = static_cast<std::int32_t>(threadIdx.x), threads = static_cast<std::int32_t>(blockDim.x);
  for (std::int32_t c = thread; c < pages.kv_heads * pages.k_dim; c += threads)
    pages.k(block, c / pages.k_dim)[token * pages.k_dim + c % pages.k_dim] = rounded<T>(k[blockIdx.x][c]);
  for (std::int32_t c = thread; v.data && c < pages.kv_heads * pages.v_dim; c += threads)
    pages.v(block, c / pages.v_dim)[token * pages.v_dim + c % pages.v_dim] = rounded<T>(v[blockIdx.x][c]);
}

// A head of dim values in E4M3, by one warp (quantise_head of f8_rows.h).
__device__ void store_codes(std::uint8_t* codes, float* scale, const float* values, std::int32_t dim) {
  const std::int32_t lane = static_cast<std::int32_t>(threadIdx.x) % 32;
  float largest = 0;
  for (std::int32_t i = lane; i < dim; i += 32) largest = fmaxf(largest, fabsf(values[i]));
  const float by = token_scale(warp_max(largest));
  for (std::int32_t i = lane; i < dim; i += 32)
    codes[i] = static_cast<std::uint8_t>(ptx::to_e4m3(values[i] / by, 0, 0, 0));
  if (lane == 0) *scale = by;
}

// A warp has a head's key, or its value.
__global__ void append_codes(Pages<std::uint8_t> pages, Rows<float> k, Rows<float> v, const std::int32_t* slots) {
  const std::int32_t block = slots[blockIdx.x] / kBlockTokens, token = slots[blockIdx.x] % kBlockTokens;
  const std::int32_t heads = pages.kv_heads, all = pages.v_in_k ? heads : 2 * heads;
  for (auto i = static_cast<std::int32_t>(threadIdx.x) / 32; i < all; i += static_cast<std::int32_t>(blockDim.x) / 32) {
    if (i < heads)
      store_codes(pages.k(block, i) + token * pages.k_dim, pages.k_scales(block, i) + token,
                  k[blockIdx.x] + i * pages.k_dim, pages.k_dim);
    else
      store_codes(pages.v(block, i - heads) + token * pages.v_dim, pages.v_scales(block, i - heads) + token,
                  v[blockIdx.x] + (i - heads) * pages.v_dim, pages.v_dim);
  }
}

void append_to_mfa(Machine& machine, const AppendKv& op) {
  const CudaKvCache& cache = of(op.cache);
  run(MfaAppend{.cache = *cache.mfa(),
                .kv_heads = cache.spec().kv_heads,
                .pages = reinterpret_cast<std::uint8_t*>(cache.layer(op.layer)),
                .page_stride = static_cast<std::int64_t>(cache.block_bytes()),
                .k = op.k.as<float>(),
                .v = op.v.as<float>(),
                .k_stride = op.k.row_stride,
                .v_stride = op.v.row_stride,
                .slots = op.slots.as<const std::int32_t>(),
                .rows = static_cast<std::int32_t>(op.k.rows())},
      machine.stream);
}

void append_to_mla(Machine& machine, const AppendKv& op) {
  const CudaKvCache& cache = of(op.cache);
  run(MlaAppend{.pages = reinterpret_cast<std::uint8_t*>(cache.layer(op.layer)),
                .page_stride = static_cast<std::int64_t>(cache.block_bytes()),
                .latent = op.k.as<float>(),
                .latent_stride = op.k.row_stride,
                .slots = op.slots.as<const std::int32_t>(),
                .rows = static_cast<std::int32_t>(op.k.rows())},
      machine.stream);
}

}  // namespace

void run(Machine& machine, const AppendKv& op) {
  if (op.k.rows() == 0) return;
  if (of(op.cache).mfa()) return append_to_mfa(machine, op);
  if (of(op.cache).has_mla_pages()) return append_to_mla(machine, op);
  const auto launch = [&]<class T>(auto kernel, const Pages<T>& pages) {
    kernel<<<static_cast<unsigned>(op.k.rows()), 256, 0, machine.stream>>>(
        pages, rows_of(op.k), op.v ? rows_of(op.v) : Rows<float>{}, op.slots.as<const std::int32_t>());
    need(cudaGetLastError(), "starting append_kv");
  };
  switch (op.cache->spec().dtype) {
    case DType::kF32:
      return launch(append_kv<float>, pages_of<float>(op.cache, op.layer));
    case DType::kBF16:
      return launch(append_kv<__nv_bfloat16>, pages_of<__nv_bfloat16>(op.cache, op.layer));
    default:
      return launch(append_codes, pages_of<std::uint8_t>(op.cache, op.layer));
  }
}

}  // namespace tandem::cuda
