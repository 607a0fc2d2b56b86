// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/cuda_kv_cache.cuh"

#include <cstring>
#include <vector>

#include "base/error.h"
#include "base/format.h"
#include "ops/cuda/attention_choice.h"

namespace tandem::cuda {

namespace {

// Canonical pages have tokens outside, heads inside; ours the other way round.
void swap_axes(const std::byte* from, std::byte* to, std::size_t outer, std::size_t inner, std::size_t bytes) {
  for (std::size_t i = 0; i < outer; ++i)
    for (std::size_t j = 0; j < inner; ++j)
      std::memcpy(to + (j * outer + i) * bytes, from + (i * inner + j) * bytes, bytes);
}

// Each layer's K and V of a block, between our order and the canonical one.
void reorder(const KvSpec& s, const std::byte* from, std::byte* to, bool to_canonical) {
  const std::size_t element = traits(s.dtype).block_bytes, heads = s.kv_heads, tokens = kBlockTokens;
  for (std::int32_t layer = 0; layer < s.layers; ++layer) {
    for (const std::int32_t dim : {s.k_dim, s.v_in_k ? 0 : s.v_dim}) {
      const std::size_t bytes = static_cast<std::size_t>(dim) * element;
      swap_axes(from, to, to_canonical ? heads : tokens, to_canonical ? tokens : heads, bytes);
      from += heads * tokens * bytes;
      to += heads * tokens * bytes;
    }
  }
}

}  // namespace

CudaKvCache::CudaKvCache(const KvSpec& s, cudaStream_t stream) : KvCache(s), stream_(stream) {
  if (s.dtype != DType::kF32 && s.dtype != DType::kBF16)
    throw Error(ErrorCode::kUnsupported, format("the cuda backend keeps KV as bf16 or f32, not {}", name(s.dtype)));
  if (s.v_dim > kValueWidthMax || attention_heads_at_once(s, 1) == 0)
    throw Error(
        ErrorCode::kUnsupported,
        format("a page of one head of {} wide keys and {} wide values in {} does not fit the {} KiB that the cuda "
               "backend's attention has, or its values are wider than {}",
               s.k_dim, s.v_dim, name(s.dtype), kSharedBytesMax >> 10, kValueWidthMax));
  data_ = allocate_device(static_cast<std::size_t>(s.blocks) * s.block_bytes());
  need(cudaMemsetAsync(data_.data(), 0, data_.bytes(), stream_), "clearing the KV cache");
}

void CudaKvCache::zero_block(std::int32_t b) {
  need(cudaMemsetAsync(block(b), 0, spec().block_bytes(), stream_), "clearing a KV block");
}

void CudaKvCache::export_block(std::int32_t b, std::byte* page) const {
  std::vector<std::byte> ours(spec().block_bytes());
  need(cudaMemcpyAsync(ours.data(), block(b), ours.size(), cudaMemcpyDeviceToHost, stream_), "reading a KV block");
  need(cudaStreamSynchronize(stream_), "reading a KV block");
  reorder(spec(), ours.data(), page, true);
}

void CudaKvCache::import_block(std::int32_t b, const std::byte* page) {
  std::vector<std::byte> ours(spec().block_bytes());
  reorder(spec(), page, ours.data(), false);
  need(cudaMemcpyAsync(block(b), ours.data(), ours.size(), cudaMemcpyHostToDevice, stream_), "writing a KV block");
  need(cudaStreamSynchronize(stream_), "writing a KV block");
}

}  // namespace tandem::cuda
