// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Paged storage of keys and values. What a page looks like inside belongs to the backend; everybody else counts blocks.
//
// A block holds kBlockTokens tokens of all layers. Slot s is token s % kBlockTokens of block s / kBlockTokens.
// The canonical page, for moving blocks between processes and backends, is
//   PageHeader, then for each layer K [64, kv_heads, k_dim] and V [64, kv_heads, v_dim] (none where the values are in
//   the keys), little endian, in the cache's dtype; in E4M3 each is followed by its scales, f32 [64, kv_heads].
//
// In E4M3 each head of a token's key, and of its value, has a scale of its own (kv_scale), which later tokens leave as
// it is: value = code · scale.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/dtype.h"

namespace tandem {

inline constexpr std::int32_t kBlockTokens = 64;

struct KvSpec {
  std::int32_t layers = 0;
  std::int32_t kv_heads = 0;
  std::int32_t k_dim = 0;      // per head
  std::int32_t v_dim = 0;      // per head
  DType dtype = DType::kBF16;  // kF32, kBF16 or kF8E4M3
  std::int64_t blocks = 0;
  bool v_in_k = false;  // a value is the first v_dim elements of its key, which is stored once

  bool operator==(const KvSpec&) const = default;
  // Of a token in one layer.
  std::int64_t token_elements() const { return static_cast<std::int64_t>(kv_heads) * (k_dim + (v_in_k ? 0 : v_dim)); }
  bool has_scales() const { return dtype == DType::kF8E4M3; }
  std::int64_t token_scales() const {
    return has_scales() ? static_cast<std::int64_t>(kv_heads) * (v_in_k ? 1 : 2) : 0;
  }
  std::size_t token_layer_bytes() const {
    return static_cast<std::size_t>(token_elements()) * traits(dtype).block_bytes +
           static_cast<std::size_t>(token_scales()) * sizeof(float);
  }
  std::size_t token_bytes() const { return static_cast<std::size_t>(layers) * token_layer_bytes(); }  // of all layers
  std::size_t block_bytes() const { return token_bytes() * kBlockTokens; }
};

struct PageHeader {
  static constexpr std::uint32_t kMagic = 0x4b544e54;  // "TNTK"
  static constexpr std::uint16_t kVersion = 1;
  std::uint32_t magic = kMagic;
  std::uint16_t version = kVersion;
  std::uint16_t dtype = 0;
  std::int32_t layers = 0, kv_heads = 0, k_dim = 0, v_dim = 0;
  std::int32_t block_tokens = kBlockTokens;
  std::int32_t v_in_k = 0;
};

inline std::size_t page_bytes(const KvSpec& spec) {
  return sizeof(PageHeader) + spec.block_bytes();
}

class KvCache {
 public:
  explicit KvCache(const KvSpec& spec) : spec_(spec) {}
  virtual ~KvCache() = default;
  KvCache(const KvCache&) = delete;
  KvCache& operator=(const KvCache&) = delete;
  const KvSpec& spec() const { return spec_; }

 private:
  KvSpec spec_;
};

}  // namespace tandem
