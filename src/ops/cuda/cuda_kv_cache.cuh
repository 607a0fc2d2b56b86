// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The cache's memory: [block][layer], and within a layer's block K as [kv head][64 tokens][k_dim] and V as
// [kv head][64 tokens][v_dim], so that what a block of threads reads of one head is one piece. No V where values are in
// their keys. Codes of E4M3 are followed by their scales, K's [kv head][64 tokens], then V's.
//
// Two kinds of heads have pages instead that the tensor cores read as they are: keys and values of 256 in bf16 or E4M3
// MFA pages, one for each key head (attention/mfa_page.h), and one latent of 512 with a rotated key of 64 in bf16 an
// MLA page (attention/mla_page.h).
#pragma once

#include <optional>

#include "ops/cuda/attention/mfa_page.h"
#include "ops/cuda/machine.cuh"
#include "ops/kv_cache.h"

namespace tandem::cuda {

class CudaKvCache final : public KvCache {
 public:
  // Throws Error{kUnsupported} for a type other than f32, bf16 and E4M3 or heads too wide, Error{kOutOfResources}.
  CudaKvCache(const KvSpec& spec, cudaStream_t stream);

  // What pages it has, if they are MFA's.
  std::optional<MfaCache> mfa() const { return mfa_; }
  bool has_mla_pages() const { return has_mla_pages_; }
  std::size_t layer_bytes() const { return layer_bytes_; }  // of a block
  std::size_t block_bytes() const { return layer_bytes_ * static_cast<std::size_t>(spec().layers); }
  // Of the layer in block 0.
  std::byte* layer(std::int32_t layer) const { return data_.bytes_data() + layer * layer_bytes_; }

  void zero_block(std::int32_t block);
  void export_block(std::int32_t block, std::byte* page) const;  // what follows the header of a canonical page
  void import_block(std::int32_t block, const std::byte* page);

 private:
  std::byte* block(std::int32_t b) const { return layer(0) + static_cast<std::size_t>(b) * block_bytes(); }
  cudaStream_t stream_;
  std::optional<MfaCache> mfa_;
  bool has_mla_pages_;
  std::size_t layer_bytes_;
  Buffer data_;
};

inline CudaKvCache& of(KvCache* cache) {
  return static_cast<CudaKvCache&>(*cache);
}
inline const CudaKvCache& of(const KvCache* cache) {
  return static_cast<const CudaKvCache&>(*cache);
}

// PagedAttention over MFA pages, and over MLA pages.
void attend_mfa_pages(Machine& machine, const PagedAttention& op);
void attend_mla_pages(Machine& machine, const PagedAttention& op);

// A layer of a cache of neither kind as kernels see it. T: float, __nv_bfloat16, or std::uint8_t for E4M3.
template <class T>
struct Pages {
  T* data;                    // of block 0
  std::int64_t block_stride;  // elements
  std::int32_t kv_heads, k_dim, v_dim;
  bool v_in_k;

  __device__ T* k(std::int32_t block, std::int32_t head) const {
    return data + block * block_stride + static_cast<std::int64_t>(head) * kBlockTokens * k_dim;
  }
  __device__ T* v(std::int32_t block, std::int32_t head) const {
    return k(block, kv_heads) + static_cast<std::int64_t>(head) * kBlockTokens * v_dim;
  }
  // Of E4M3.
  __device__ float* k_scales(std::int32_t block, std::int32_t head) const {
    return reinterpret_cast<float*>(v(block, v_in_k ? 0 : kv_heads)) + head * kBlockTokens;
  }
  __device__ float* v_scales(std::int32_t block, std::int32_t head) const { return k_scales(block, kv_heads + head); }
};

template <class T>
Pages<T> pages_of(const KvCache* cache, std::int32_t layer) {
  const KvSpec& s = cache->spec();
  return {reinterpret_cast<T*>(of(cache).layer(layer)),
          static_cast<std::int64_t>(of(cache).block_bytes() / sizeof(T)),
          s.kv_heads,
          s.k_dim,
          s.v_dim,
          s.v_in_k};
}

}  // namespace tandem::cuda
