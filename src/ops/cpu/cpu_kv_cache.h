// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The cache's memory: [block][layer], and within a layer's block K as [kv head][k_dim][64 tokens] and V as
// [kv head][64 tokens][v_dim, padded]: scores then have a lane per token, outputs a lane per value, and no sum runs
// across lanes. The padding of V is zero and stays so. Where values are in the keys there is only V, its rows the keys.
#pragma once

#include "ops/kv_cache.h"
#include "tensor/tensor.h"

namespace tandem::cpu {

class CpuKvCache final : public KvCache {
 public:
  // Throws Error{kUnsupported} for a type other than bf16 and f32, Error{kOutOfResources} without the memory.
  explicit CpuKvCache(const KvSpec& spec);

  bool is_f32() const { return spec().dtype == DType::kF32; }
  int v_padded() const { return v_padded_; }                  // elements of a value, to whole vectors
  int v_stride() const { return v_stride_; }                  // elements between rows of V
  std::size_t block_stride() const { return block_stride_; }  // bytes
  // K and V of one head in one layer of one block; k is nothing where values are in the keys.
  std::byte* k(std::int32_t block, std::int32_t layer, std::int32_t head) const;
  std::byte* v(std::int32_t block, std::int32_t layer, std::int32_t head) const;

  void zero_block(std::int32_t block);
  void export_block(std::int32_t block, std::byte* page) const;  // what follows the header of a canonical page
  void import_block(std::int32_t block, const std::byte* page);

 private:
  int v_padded_, v_stride_;
  std::size_t k_bytes_, v_bytes_;  // of one head in one layer's block
  std::size_t layer_stride_, block_stride_;
  Buffer data_;
};

inline CpuKvCache& cpu_cache(KvCache& cache) {
  return static_cast<CpuKvCache&>(cache);
}
inline const CpuKvCache& cpu_cache(const KvCache& cache) {
  return static_cast<const CpuKvCache&>(cache);
}

}  // namespace tandem::cpu
