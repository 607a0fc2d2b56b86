// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include <cuda_bf16.h>

#include "ops/cuda/cuda_kv_cache.cuh"

namespace tandem::cuda {

namespace {

template <class T>
__device__ T rounded(float value) {
  return value;
}
template <>
__device__ __nv_bfloat16 rounded<__nv_bfloat16>(float value) {
  if (isnan(value)) return __ushort_as_bfloat16(static_cast<unsigned short>(__float_as_uint(value) >> 16 | 0x40u));
  return __float2bfloat16_rn(value);  // which would give every NaN the same bits
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

}  // namespace

void run(Machine& machine, const AppendKv& op) {
  if (op.k.rows() == 0) return;
  const auto launch = [&]<class T>(const Pages<T>& pages) {
    append_kv<<<static_cast<unsigned>(op.k.rows()), 256, 0, machine.stream>>>(
        pages, rows_of(op.k), op.v ? rows_of(op.v) : Rows<float>{}, op.slots.as<const std::int32_t>());
    need(cudaGetLastError(), "starting append_kv");
  };
  if (of(op.cache).is_f32())
    launch(pages_of<float>(op.cache, op.layer));
  else
    launch(pages_of<__nv_bfloat16>(op.cache, op.layer));
}

}  // namespace tandem::cuda
