// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What the files of the reference backend share.
#pragma once

#include <cstring>
#include <vector>

#include "base/check.h"
#include "base/scalar.h"
#include "ops/backend.h"

namespace tandem::reference {

// Stored transposed, [k, n], so that the plain loop over outputs runs along memory.
struct ReferenceWeight final : Weight {
  ReferenceWeight(std::int64_t n, std::int64_t k, bool quantised)
      : Weight(n, k, static_cast<std::size_t>(n * k) * sizeof(float)), values(n * k), quantised(quantised) {}
  std::vector<float> values;
  bool quantised;  // all of it was
};

// One array per kind, [blocks, layers, 64, kv_heads, dim], in the cache's dtype, each page of it followed by its scales
// where it has some; that of V is empty where it is in K.
struct ReferenceKvCache final : KvCache {
  explicit ReferenceKvCache(const KvSpec& spec);
  // A token's key or value of one head.
  void load_k(std::int32_t slot, std::int32_t layer, std::int32_t head, float* to) const;
  void load_v(std::int32_t slot, std::int32_t layer, std::int32_t head, float* to) const;
  // A token's keys or values of all heads.
  void store_k(std::int32_t slot, std::int32_t layer, const float* values);
  void store_v(std::int32_t slot, std::int32_t layer, const float* values);
  // Where a layer's tokens of a block begin in the pages, and how many bytes they take.
  std::byte* k_page(std::int32_t block, std::int32_t layer) const;
  std::byte* v_page(std::int32_t block, std::int32_t layer) const;
  std::size_t k_page_bytes() const;
  std::size_t v_page_bytes() const;

  Buffer k_pages, v_pages;
};

inline const ReferenceWeight& of(const Weight* weight) {
  return static_cast<const ReferenceWeight&>(*weight);
}
inline const ReferenceKvCache& of(const KvCache* cache) {
  return static_cast<const ReferenceKvCache&>(*cache);
}
inline ReferenceKvCache& of(KvCache* cache) {
  return static_cast<ReferenceKvCache&>(*cache);
}

void run(const EmbedRows& op);
void run(const RmsNorm& op);
void run(const AddRmsNorm& op);
void run(const MatMul& op);
void run(const GroupedMatMul& op);
void run(const Rope& op);
void run(const ProjectHeads& op);
void run(const GateHeads& op);
void run(const AppendKv& op);
void run(const PagedAttention& op);
void run(const SwiGlu& op);
void run(const SelectExperts& op);
void run(const GroupByExpert& op);
void run(const ClampIds& op);
void run(const GatherRows& op);
void run(const ScatterScaledRows& op);
void run(const CombineExperts& op);
void run(const Sample& op);
void run(const QuantiseRows& op);
void run(const WidenRows& op);
void run(const Fp8MatMul& op);
void run(const Fp8Experts& op);
void run(const Int8MatMul& op);
void run(const Int8GroupedMatMul& op);
void run(const AddRows& op);
void run(const AddLayerNorm& op);
void run(const QuickGelu& op);
void run(const Im2Col& op);
void run(const FullAttention& op);

}  // namespace tandem::reference
