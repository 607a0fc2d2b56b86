// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The cache's memory: [block][layer], and within a layer's block K as [kv head][64 tokens][k_dim] and V as
// [kv head][64 tokens][v_dim], so that what a block of threads reads of one head is one piece. No V where values are in
// their keys.
#pragma once

#include "ops/cuda/machine.cuh"
#include "ops/kv_cache.h"

namespace tandem::cuda {

class CudaKvCache final : public KvCache {
 public:
  // Throws Error{kUnsupported} for a type other than bf16 and f32 or heads too wide, Error{kOutOfResources}.
  CudaKvCache(const KvSpec& spec, cudaStream_t stream);

  bool is_f32() const { return spec().dtype == DType::kF32; }
  std::byte* data() const { return data_.bytes_data(); }

  void zero_block(std::int32_t block);
  void export_block(std::int32_t block, std::byte* page) const;  // what follows the header of a canonical page
  void import_block(std::int32_t block, const std::byte* page);

 private:
  std::byte* block(std::int32_t b) const { return data() + static_cast<std::size_t>(b) * spec().block_bytes(); }
  cudaStream_t stream_;
  Buffer data_;
};

inline CudaKvCache& of(KvCache* cache) {
  return static_cast<CudaKvCache&>(*cache);
}
inline const CudaKvCache& of(const KvCache* cache) {
  return static_cast<const CudaKvCache&>(*cache);
}

// The cache as kernels see it. T: float or __nv_bfloat16.
template <class T>
struct Pages {
  T* data;
  std::int32_t layers, layer, kv_heads, k_dim, v_dim;
  bool v_in_k;

  __device__ T* layer_of(std::int32_t block) const {
    return data + (static_cast<std::int64_t>(block) * layers + layer) * kBlockTokens * kv_heads *
                      (k_dim + (v_in_k ? 0 : v_dim));
  }
  __device__ T* k(std::int32_t block, std::int32_t head) const {
    return layer_of(block) + static_cast<std::int64_t>(head) * kBlockTokens * k_dim;
  }
  __device__ T* v(std::int32_t block, std::int32_t head) const {
    return layer_of(block) + static_cast<std::int64_t>(kBlockTokens) * (kv_heads * k_dim + head * v_dim);
  }
};

template <class T>
Pages<T> pages_of(const KvCache* cache, std::int32_t layer) {
  const KvSpec& s = cache->spec();
  return {reinterpret_cast<T*>(of(cache).data()), s.layers, layer, s.kv_heads, s.k_dim, s.v_dim, s.v_in_k};
}

}  // namespace tandem::cuda
