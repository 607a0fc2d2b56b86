// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/cuda_kv_cache.cuh"

#include <cmath>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "base/format.h"
#include "base/scalar.h"
#include "ops/cuda/attention/mla_page.h"
#include "ops/cuda/attention_choice.h"

namespace tandem::cuda {

namespace {

std::optional<MfaCache> mfa_of(const KvSpec& s) {
  if (s.k_dim != MfaPage::kDim || s.v_dim != MfaPage::kDim || s.v_in_k) return {};
  if (s.dtype == DType::kBF16) return MfaCache::kBf16;
  if (s.dtype == DType::kF8E4M3) return MfaCache::kFp8;
  return {};
}

bool is_mla(const KvSpec& s) {
  return s.dtype == DType::kBF16 && s.v_in_k && s.kv_heads == 1 && s.k_dim == MlaPage::kWidth &&
         s.v_dim == MlaPage::kLatent;
}

// Keys or values of one layer's block, as they are here and in a canonical page.
struct Side {
  std::size_t heads, element_bytes, dim;
  bool has_scales;
  std::size_t row_bytes() const { return dim * element_bytes; }
  std::size_t bytes() const { return kBlockTokens * heads * row_bytes(); }
  std::size_t scale_bytes() const { return has_scales ? kBlockTokens * heads * sizeof(float) : 0; }
};

// Canonical pages have tokens outside, heads inside; ours the other way round.
template <bool kExport>
void swap_axes(std::byte* ours, std::byte* canonical, std::size_t heads, std::size_t bytes) {
  for (std::size_t h = 0; h < heads; ++h) {
    for (std::size_t t = 0; t < kBlockTokens; ++t) {
      std::byte *here = ours + (h * kBlockTokens + t) * bytes, *there = canonical + (t * heads + h) * bytes;
      std::memcpy(kExport ? there : here, kExport ? here : there, bytes);
    }
  }
}

// One layer's block of plain pages. What is written is ours or the canonical page.
template <bool kExport>
void convert_plain(const KvSpec& s, std::byte* ours, std::byte* canonical) {
  const std::size_t heads = static_cast<std::size_t>(s.kv_heads), element = traits(s.dtype).block_bytes;
  const Side k{heads, element, static_cast<std::size_t>(s.k_dim), s.has_scales()};
  const Side v{s.v_in_k ? 0 : heads, element, static_cast<std::size_t>(s.v_dim), s.has_scales()};
  std::byte* scales = ours + k.bytes() + v.bytes();
  for (const Side& side : {k, v}) {
    swap_axes<kExport>(ours, canonical, side.heads, side.row_bytes());
    ours += side.bytes();
    canonical += side.bytes();
    if (side.has_scales) swap_axes<kExport>(scales, canonical, side.heads, sizeof(float));
    scales += side.scale_bytes();
    canonical += side.scale_bytes();
  }
}

template <bool kExport, class T>
void move(std::byte* ours, std::byte* canonical) {
  std::memcpy(kExport ? canonical : ours, kExport ? ours : canonical, sizeof(T));
}

// Of one token's value: a page keeps log2 and inverse of the scale, whose eight significant bits the inverse tells.
template <bool kExport>
void convert_value_scale(float* ours, std::byte* canonical) {
  float &log = ours[kBlockTokens], &inverse = ours[2 * kBlockTokens], scale = 0;
  if constexpr (kExport) {
    if (inverse == 0)
      scale = std::isinf(log) ? log : 0;  // 0: nothing was ever stored here
    else
      scale = bf16_to_f32(f32_to_bf16(1 / inverse));
    std::memcpy(canonical, &scale, sizeof scale);
  } else {
    std::memcpy(&scale, canonical, sizeof scale);
    log = scale == 0 ? 0 : std::log2(scale);
    inverse = scale == 0 ? 0 : 1 / scale;
  }
}

// The MFA page of one key head.
template <bool kExport, class Element, class Page>
void convert_mfa_head(const KvSpec& s, std::int32_t head, std::byte* ours, std::byte* canonical) {
  const std::size_t side = static_cast<std::size_t>(kBlockTokens) * s.kv_heads * MfaPage::kDim * sizeof(Element);
  const std::size_t scales = s.has_scales() ? static_cast<std::size_t>(kBlockTokens) * s.kv_heads * sizeof(float) : 0;
  std::byte *keys = canonical, *values = canonical + side + scales;
  for (int t = 0; t < kBlockTokens; ++t) {
    const std::size_t row = static_cast<std::size_t>(t) * s.kv_heads + head;
    for (int d = 0; d < MfaPage::kDim; ++d) {
      const std::size_t at = (row * MfaPage::kDim + d) * sizeof(Element);
      move<kExport, Element>(ours + Page::key_offset(t, d), keys + at);
      move<kExport, Element>(ours + Page::value_offset(d, t), values + at);
    }
    if (!s.has_scales()) continue;
    float* own = reinterpret_cast<float*>(ours + MfaPage::kScalesAt) + t;
    move<kExport, float>(reinterpret_cast<std::byte*>(own), keys + side + row * sizeof(float));
    convert_value_scale<kExport>(own, values + side + row * sizeof(float));
  }
}

template <bool kExport>
void convert_mla(std::byte* ours, std::byte* canonical) {
  for (int t = 0; t < kBlockTokens; ++t)
    for (int d = 0; d < MlaPage::kWidth; ++d)
      move<kExport, std::uint16_t>(ours + MlaPage::offset(t, d),
                                   canonical + (t * MlaPage::kWidth + d) * sizeof(std::uint16_t));
}

// A block between our order and the canonical one.
template <bool kExport>
void convert(const CudaKvCache& cache, std::byte* ours, std::byte* canonical) {
  const KvSpec& s = cache.spec();
  for (std::int32_t layer = 0; layer < s.layers; ++layer) {
    if (cache.has_mla_pages())
      convert_mla<kExport>(ours, canonical);
    else if (!cache.mfa())
      convert_plain<kExport>(s, ours, canonical);
    for (std::int32_t head = 0; cache.mfa() && head < s.kv_heads; ++head) {
      std::byte* page = ours + head * mfa_page_bytes(*cache.mfa());
      if (*cache.mfa() == MfaCache::kFp8)
        convert_mfa_head<kExport, std::uint8_t, MfaPage>(s, head, page, canonical);
      else
        convert_mfa_head<kExport, std::uint16_t, MfaPageBf16>(s, head, page, canonical);
    }
    ours += cache.layer_bytes();
    canonical += s.token_layer_bytes() * kBlockTokens;
  }
}

}  // namespace

CudaKvCache::CudaKvCache(const KvSpec& s, cudaStream_t stream)
    : KvCache(s),
      stream_(stream),
      mfa_(mfa_of(s)),
      has_mla_pages_(is_mla(s)),
      layer_bytes_(mfa_ ? static_cast<std::size_t>(s.kv_heads) * mfa_page_bytes(*mfa_)
                        : s.token_layer_bytes() * kBlockTokens) {
  if (s.dtype != DType::kF32 && s.dtype != DType::kBF16 && s.dtype != DType::kF8E4M3)
    throw Error(ErrorCode::kUnsupported,
                format("the cuda backend keeps KV as f32, bf16 or f8_e4m3, not {}", name(s.dtype)));
  if (!mfa_ && (s.v_dim > kValueWidthMax || attention_heads_at_once(s, 1) == 0))
    throw Error(
        ErrorCode::kUnsupported,
        format("a page of one head of {} wide keys and {} wide values in {} does not fit the {} KiB that the cuda "
               "backend's attention has, or its values are wider than {}",
               s.k_dim, s.v_dim, name(s.dtype), kSharedBytesMax >> 10, kValueWidthMax));
  data_ = allocate_device(static_cast<std::size_t>(s.blocks) * block_bytes());
  need(cudaMemsetAsync(data_.data(), 0, data_.bytes(), stream_), "clearing the KV cache");
}

void CudaKvCache::zero_block(std::int32_t b) {
  need(cudaMemsetAsync(block(b), 0, block_bytes(), stream_), "clearing a KV block");
}

void CudaKvCache::export_block(std::int32_t b, std::byte* page) const {
  std::vector<std::byte> ours(block_bytes());
  need(cudaMemcpyAsync(ours.data(), block(b), ours.size(), cudaMemcpyDeviceToHost, stream_), "reading a KV block");
  need(cudaStreamSynchronize(stream_), "reading a KV block");
  convert<true>(*this, ours.data(), page);
}

void CudaKvCache::import_block(std::int32_t b, const std::byte* page) {
  std::vector<std::byte> ours(block_bytes());
  convert<false>(*this, ours.data(), const_cast<std::byte*>(page));  // which is read
  need(cudaMemcpyAsync(block(b), ours.data(), ours.size(), cudaMemcpyHostToDevice, stream_), "writing a KV block");
  need(cudaStreamSynchronize(stream_), "writing a KV block");
}

}  // namespace tandem::cuda
