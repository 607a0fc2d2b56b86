// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cpu/cpu_kv_cache.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/format.h"
#include "ops/cpu/kernels.h"

namespace tandem::cpu {

static_assert(kTokensPerBlock == kBlockTokens);

namespace {

constexpr int kLanesMax = 16;  // of any variant, so that variants can share a cache's layout

const KvSpec& checked(const KvSpec& spec) {
  if (spec.dtype != DType::kF32 && spec.dtype != DType::kBF16)
    throw Error(ErrorCode::kUnsupported,
                format("the cpu backend keeps KV as bf16 or f32, not {} (--kv-dtype)", name(spec.dtype)));
  return spec;
}

int padded(std::int32_t elements) {
  return (elements + kLanesMax - 1) / kLanesMax * kLanesMax;
}

std::size_t element_bytes(const KvSpec& spec) {
  return traits(spec.dtype).block_bytes;
}

// One head of one layer's block, between [dim][64] or [64][stride] here and [64][kv_heads · dim] in a page.
template <class Element>
void copy_k(const std::byte* from, std::int64_t dim, std::int64_t page_stride, std::byte* page) {
  const auto* in = reinterpret_cast<const Element*>(from);
  auto* out = reinterpret_cast<Element*>(page);
  for (std::int64_t t = 0; t < kBlockTokens; ++t)
    for (std::int64_t d = 0; d < dim; ++d) out[t * page_stride + d] = in[d * kBlockTokens + t];
}

template <class Element>
void place_k(const std::byte* page, std::int64_t dim, std::int64_t page_stride, std::byte* to) {
  const auto* in = reinterpret_cast<const Element*>(page);
  auto* out = reinterpret_cast<Element*>(to);
  for (std::int64_t t = 0; t < kBlockTokens; ++t)
    for (std::int64_t d = 0; d < dim; ++d) out[d * kBlockTokens + t] = in[t * page_stride + d];
}

}  // namespace

CpuKvCache::CpuKvCache(const KvSpec& spec)
    : KvCache(checked(spec)),
      v_padded_(padded(spec.v_dim)),
      v_stride_(spec.v_in_k ? padded(spec.k_dim) : v_padded_),
      k_bytes_(spec.v_in_k ? 0 : static_cast<std::size_t>(kBlockTokens) * spec.k_dim * element_bytes(spec)),
      v_bytes_(static_cast<std::size_t>(kBlockTokens) * v_stride_ * element_bytes(spec)),
      layer_stride_((k_bytes_ + v_bytes_) * spec.kv_heads),
      block_stride_(layer_stride_ * spec.layers),
      data_(allocate_host(block_stride_ * static_cast<std::size_t>(spec.blocks))) {}

std::byte* CpuKvCache::k(std::int32_t block, std::int32_t layer, std::int32_t head) const {
  return data_.bytes_data() + block * block_stride_ + layer * layer_stride_ + head * k_bytes_;
}

std::byte* CpuKvCache::v(std::int32_t block, std::int32_t layer, std::int32_t head) const {
  return data_.bytes_data() + block * block_stride_ + layer * layer_stride_ + spec().kv_heads * k_bytes_ +
         head * v_bytes_;
}

void CpuKvCache::zero_block(std::int32_t block) {
  std::fill_n(k(block, 0, 0), block_stride_, std::byte{0});  // none where a pool has no layers
}

void CpuKvCache::export_block(std::int32_t block, std::byte* page) const {
  const KvSpec& s = spec();
  const std::size_t element = element_bytes(s), k_row = s.v_in_k ? 0 : s.k_dim * element;
  const std::size_t v_row = (s.v_in_k ? s.k_dim : s.v_dim) * element;
  for (std::int32_t layer = 0; layer < s.layers; ++layer) {
    for (std::int32_t head = 0; !s.v_in_k && head < s.kv_heads; ++head) {
      const auto copy = is_f32() ? copy_k<float> : copy_k<std::uint16_t>;
      copy(k(block, layer, head), s.k_dim, static_cast<std::int64_t>(s.kv_heads) * s.k_dim, page + head * k_row);
    }
    page += kBlockTokens * s.kv_heads * k_row;
    for (std::int32_t head = 0; head < s.kv_heads; ++head)
      for (std::int32_t t = 0; t < kBlockTokens; ++t)
        std::memcpy(page + (t * s.kv_heads + head) * v_row, v(block, layer, head) + t * v_stride_ * element, v_row);
    page += kBlockTokens * s.kv_heads * v_row;
  }
}

void CpuKvCache::import_block(std::int32_t block, const std::byte* page) {
  const KvSpec& s = spec();
  const std::size_t element = element_bytes(s), k_row = s.v_in_k ? 0 : s.k_dim * element;
  const std::size_t v_row = (s.v_in_k ? s.k_dim : s.v_dim) * element;
  for (std::int32_t layer = 0; layer < s.layers; ++layer) {
    for (std::int32_t head = 0; !s.v_in_k && head < s.kv_heads; ++head) {
      const auto place = is_f32() ? place_k<float> : place_k<std::uint16_t>;
      place(page + head * k_row, s.k_dim, static_cast<std::int64_t>(s.kv_heads) * s.k_dim, k(block, layer, head));
    }
    page += kBlockTokens * s.kv_heads * k_row;
    for (std::int32_t head = 0; head < s.kv_heads; ++head)
      for (std::int32_t t = 0; t < kBlockTokens; ++t)
        std::memcpy(v(block, layer, head) + t * v_stride_ * element, page + (t * s.kv_heads + head) * v_row, v_row);
    page += kBlockTokens * s.kv_heads * v_row;
  }
}

}  // namespace tandem::cpu
