// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The cache and attention over it.
#include <algorithm>
#include <cmath>

#include "ops/reference/reference.h"

namespace tandem::reference {

namespace {

std::size_t element_bytes(const KvSpec& spec) {
  return traits(spec.dtype).block_bytes;
}

float load(const std::byte* page, DType dtype, std::size_t index) {
  if (dtype == DType::kF32) return reinterpret_cast<const float*>(page)[index];
  return bf16_to_f32(reinterpret_cast<const std::uint16_t*>(page)[index]);
}

void store(std::byte* page, DType dtype, std::size_t index, float value) {
  if (dtype == DType::kF32)
    reinterpret_cast<float*>(page)[index] = value;
  else
    reinterpret_cast<std::uint16_t*>(page)[index] = f32_to_bf16(value);
}

std::size_t within(std::int32_t slot, std::int32_t row_elements, std::int32_t column) {
  return static_cast<std::size_t>(slot % kBlockTokens) * row_elements + column;
}

}  // namespace

ReferenceKvCache::ReferenceKvCache(const KvSpec& s)
    : KvCache(s),
      k_pages(allocate_host(s.blocks * s.layers * k_page_bytes())),
      v_pages(allocate_host(s.blocks * s.layers * v_page_bytes())) {}

std::size_t ReferenceKvCache::k_page_bytes() const {
  return static_cast<std::size_t>(kBlockTokens) * spec().kv_heads * spec().k_dim * element_bytes(spec());
}
std::size_t ReferenceKvCache::v_page_bytes() const {
  if (spec().v_in_k) return 0;
  return static_cast<std::size_t>(kBlockTokens) * spec().kv_heads * spec().v_dim * element_bytes(spec());
}
std::byte* ReferenceKvCache::k_page(std::int32_t block, std::int32_t layer) const {
  return k_pages.bytes_data() + (static_cast<std::size_t>(block) * spec().layers + layer) * k_page_bytes();
}
std::byte* ReferenceKvCache::v_page(std::int32_t block, std::int32_t layer) const {
  return v_pages.bytes_data() + (static_cast<std::size_t>(block) * spec().layers + layer) * v_page_bytes();
}
float ReferenceKvCache::load_k(std::int32_t slot, std::int32_t layer, std::int32_t head, std::int32_t i) const {
  return load(k_page(slot / kBlockTokens, layer), spec().dtype,
              within(slot, spec().kv_heads * spec().k_dim, head * spec().k_dim + i));
}
float ReferenceKvCache::load_v(std::int32_t slot, std::int32_t layer, std::int32_t head, std::int32_t i) const {
  if (spec().v_in_k) return load_k(slot, layer, head, i);
  return load(v_page(slot / kBlockTokens, layer), spec().dtype,
              within(slot, spec().kv_heads * spec().v_dim, head * spec().v_dim + i));
}
void ReferenceKvCache::store_k(std::int32_t slot, std::int32_t layer, std::int32_t column, float value) {
  store(k_page(slot / kBlockTokens, layer), spec().dtype, within(slot, spec().kv_heads * spec().k_dim, column), value);
}
void ReferenceKvCache::store_v(std::int32_t slot, std::int32_t layer, std::int32_t column, float value) {
  store(v_page(slot / kBlockTokens, layer), spec().dtype, within(slot, spec().kv_heads * spec().v_dim, column), value);
}

void run(const AppendKv& op) {
  ReferenceKvCache& cache = of(op.cache);
  for (std::int64_t i = 0; i < op.k.rows(); ++i) {
    const std::int32_t slot = op.slots.as<const std::int32_t>()[i];
    for (std::int32_t c = 0; c < op.k.shape[1]; ++c) cache.store_k(slot, op.layer, c, op.k.row<float>(i)[c]);
    for (std::int32_t c = 0; op.v && c < op.v.shape[1]; ++c) cache.store_v(slot, op.layer, c, op.v.row<float>(i)[c]);
  }
}

void run(const PagedAttention& op) {
  const ReferenceKvCache& cache = of(op.cache);
  const KvSpec& spec = cache.spec();
  std::vector<float> scores;
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
        float dot = 0;
        for (std::int32_t i = 0; i < spec.k_dim; ++i) dot += q[i] * cache.load_k(slot(t), op.layer, kv_head, i);
        scores[t] = dot * op.scale;
        top = std::max(top, scores[t]);
      }
      float total = 0;
      for (std::int32_t t = begin; t < context; ++t) total += scores[t] = std::exp(scores[t] - top);
      float* out = op.out.row<float>(r) + h * spec.v_dim;
      std::fill(out, out + spec.v_dim, 0.0f);
      for (std::int32_t t = begin; t < context; ++t)
        for (std::int32_t i = 0; i < spec.v_dim; ++i) out[i] += scores[t] * cache.load_v(slot(t), op.layer, kv_head, i);
      for (std::int32_t i = 0; i < spec.v_dim; ++i) out[i] /= total;
    }
  }
}

}  // namespace tandem::reference
