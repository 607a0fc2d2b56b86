// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The cache and attention over it.
#include <algorithm>
#include <cmath>

#include "ops/f8_rows.h"
#include "ops/reference/reference.h"

namespace tandem::reference {

namespace {

// What one layer's block keeps of its keys or of its values: [64, heads, dim], then the scales of E4M3.
struct Page {
  std::byte* data;
  DType dtype;
  std::int32_t heads, dim;

  std::size_t element(std::int32_t slot, std::int32_t head, std::int32_t i) const {
    return (static_cast<std::size_t>(slot % kBlockTokens) * heads + head) * dim + i;
  }
  float& scale(std::int32_t slot, std::int32_t head) const {
    float* scales = reinterpret_cast<float*>(data + element(kBlockTokens - 1, heads, 0));
    return scales[slot % kBlockTokens * heads + head];
  }
  void load(std::int32_t slot, std::int32_t head, std::int32_t count, float* to) const {
    const std::size_t at = element(slot, head, 0);
    if (dtype == DType::kF32) {
      std::copy_n(reinterpret_cast<const float*>(data) + at, count, to);
    } else if (dtype == DType::kBF16) {
      const auto* from = reinterpret_cast<const std::uint16_t*>(data) + at;
      std::transform(from, from + count, to, bf16_to_f32);
    } else {
      const auto* from = reinterpret_cast<const std::uint8_t*>(data) + at;
      const float factor = scale(slot, head);
      std::transform(from, from + count, to, [&](std::uint8_t code) { return f8_e4m3_to_f32(code) * factor; });
    }
  }
  void store(std::int32_t slot, std::int32_t head, const float* values) const {
    const std::size_t at = element(slot, head, 0);
    if (dtype == DType::kF32)
      std::copy_n(values, dim, reinterpret_cast<float*>(data) + at);
    else if (dtype == DType::kBF16)
      std::transform(values, values + dim, reinterpret_cast<std::uint16_t*>(data) + at, f32_to_bf16);
    else
      scale(slot, head) = quantise_head(values, dim, reinterpret_cast<std::uint8_t*>(data) + at);
  }
};

std::size_t page_bytes(const KvSpec& spec, std::int32_t dim) {
  const std::size_t head = static_cast<std::size_t>(dim) * traits(spec.dtype).block_bytes;
  return static_cast<std::size_t>(kBlockTokens) * spec.kv_heads * (head + (spec.has_scales() ? sizeof(float) : 0));
}

Page k_of(const ReferenceKvCache& cache, std::int32_t slot, std::int32_t layer) {
  const KvSpec& s = cache.spec();
  return {cache.k_page(slot / kBlockTokens, layer), s.dtype, s.kv_heads, s.k_dim};
}
Page v_of(const ReferenceKvCache& cache, std::int32_t slot, std::int32_t layer) {
  const KvSpec& s = cache.spec();
  return {cache.v_page(slot / kBlockTokens, layer), s.dtype, s.kv_heads, s.v_dim};
}

}  // namespace

ReferenceKvCache::ReferenceKvCache(const KvSpec& s)
    : KvCache(s),
      k_pages(allocate_host(s.blocks * s.layers * k_page_bytes())),
      v_pages(allocate_host(s.blocks * s.layers * v_page_bytes())) {}

std::size_t ReferenceKvCache::k_page_bytes() const {
  return page_bytes(spec(), spec().k_dim);
}
std::size_t ReferenceKvCache::v_page_bytes() const {
  return spec().v_in_k ? 0 : page_bytes(spec(), spec().v_dim);
}
std::byte* ReferenceKvCache::k_page(std::int32_t block, std::int32_t layer) const {
  return k_pages.bytes_data() + (static_cast<std::size_t>(block) * spec().layers + layer) * k_page_bytes();
}
std::byte* ReferenceKvCache::v_page(std::int32_t block, std::int32_t layer) const {
  return v_pages.bytes_data() + (static_cast<std::size_t>(block) * spec().layers + layer) * v_page_bytes();
}
void ReferenceKvCache::load_k(std::int32_t slot, std::int32_t layer, std::int32_t head, float* to) const {
  k_of(*this, slot, layer).load(slot, head, spec().k_dim, to);
}
void ReferenceKvCache::load_v(std::int32_t slot, std::int32_t layer, std::int32_t head, float* to) const {
  (spec().v_in_k ? k_of(*this, slot, layer) : v_of(*this, slot, layer)).load(slot, head, spec().v_dim, to);
}
void ReferenceKvCache::store_k(std::int32_t slot, std::int32_t layer, const float* values) {
  for (std::int32_t h = 0; h < spec().kv_heads; ++h) k_of(*this, slot, layer).store(slot, h, values + h * spec().k_dim);
}
void ReferenceKvCache::store_v(std::int32_t slot, std::int32_t layer, const float* values) {
  for (std::int32_t h = 0; h < spec().kv_heads; ++h) v_of(*this, slot, layer).store(slot, h, values + h * spec().v_dim);
}

void run(const AppendKv& op) {
  ReferenceKvCache& cache = of(op.cache);
  for (std::int64_t i = 0; i < op.k.rows(); ++i) {
    const std::int32_t slot = op.slots.as<const std::int32_t>()[i];
    cache.store_k(slot, op.layer, op.k.row<float>(i));
    if (op.v) cache.store_v(slot, op.layer, op.v.row<float>(i));
  }
}

void run(const PagedAttention& op) {
  const ReferenceKvCache& cache = of(op.cache);
  const KvSpec& spec = cache.spec();
  std::vector<float> scores, key(static_cast<std::size_t>(spec.k_dim)), value(static_cast<std::size_t>(spec.v_dim));
  for (std::int64_t r = 0; r < op.q.rows(); ++r) {
    const std::int32_t position = op.positions.as<const std::int32_t>()[r];
    const std::int32_t begin = op.first_seen(position), context = position + 1;
    const auto* table = op.block_table.row<const std::int32_t>(op.sequences.as<const std::int32_t>()[r]);
    const auto slot = [&](std::int32_t t) { return table[t / kBlockTokens] * kBlockTokens + t % kBlockTokens; };
    scores.resize(context);
    for (std::int32_t h = 0; h < op.heads; ++h) {
      const std::int32_t kv_head = h / (op.heads / spec.kv_heads);
      const float* q = op.q.row<float>(r) + h * spec.k_dim;
      float top = -INFINITY;
      for (std::int32_t t = begin; t < context; ++t) {
        cache.load_k(slot(t), op.layer, kv_head, key.data());
        float dot = 0;
        for (std::int32_t i = 0; i < spec.k_dim; ++i) dot += q[i] * key[i];
        scores[t] = dot * op.scale;
        top = std::max(top, scores[t]);
      }
      float total = 0;
      for (std::int32_t t = begin; t < context; ++t) total += scores[t] = std::exp(scores[t] - top);
      float* out = op.out.row<float>(r) + h * spec.v_dim;
      std::fill(out, out + spec.v_dim, 0.0f);
      for (std::int32_t t = begin; t < context; ++t) {
        cache.load_v(slot(t), op.layer, kv_head, value.data());
        for (std::int32_t i = 0; i < spec.v_dim; ++i) out[i] += scores[t] * value[i];
      }
      for (std::int32_t i = 0; i < spec.v_dim; ++i) out[i] /= total;
    }
  }
}

}  // namespace tandem::reference
