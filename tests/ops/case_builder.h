// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Builds the operands of operators on any backend from a seed: the same numbers on each. It owns what the operators
// point to. Used by tests and by kernel benchmarks.
#pragma once

#include <algorithm>
#include <cstring>
#include <deque>
#include <memory>
#include <utility>
#include <vector>

#include "base/rng.h"
#include "ops/backend.h"

namespace tandem {

// Bytes of a matrix in a file's layout.
struct StoredMatrix {
  DType dtype;
  std::int64_t n, k;
  std::vector<std::byte> bytes;
  BlockScales scales;  // of f8_e4m3

  std::size_t stride() const { return row_bytes(dtype, static_cast<std::size_t>(k)); }
  WeightPart part() const { return {bytes.data(), dtype, n, stride(), {}, scales}; }
};

inline void store_u16(std::byte* p, std::uint16_t value) {
  std::memcpy(p, &value, sizeof value);
}

// Random values of about ±0.1, in every bit pattern of that range that the type has; a few halves are subnormal or
// zero.
inline StoredMatrix random_matrix(Rng& rng, DType dtype, std::int64_t n, std::int64_t k) {
  StoredMatrix m{dtype, n, k, {}, {}};
  m.bytes.resize(static_cast<std::size_t>(n) * m.stride());
  const auto small_half = [&rng] {
    return static_cast<std::uint16_t>((rng.below(2) << 15) | (0x1c00 + rng.below(0x0c00)));
  };
  for (std::size_t i = 0; i < m.bytes.size(); i += traits(dtype).block_bytes) {
    std::byte* p = &m.bytes[i];
    if (dtype == DType::kF32) {
      const float value = 0.1f * rng.normal();
      std::memcpy(p, &value, sizeof value);
    } else if (dtype == DType::kBF16) {
      store_u16(p, static_cast<std::uint16_t>((rng.below(2) << 15) | (0x3c00 + rng.below(0x0200))));
    } else if (dtype == DType::kF8E4M3) {
      *p = static_cast<std::byte>((rng.below(2) << 7) | rng.below(0x7f));  // all but NaN
    } else if (dtype == DType::kF16) {
      store_u16(p, rng.below(50) == 0 ? static_cast<std::uint16_t>(rng.below(0x0400)) : small_half());
    } else {
      for (std::size_t j = 0; j < traits(dtype).block_bytes; ++j) p[j] = static_cast<std::byte>(rng.below(256));
      const bool is_k = traits(dtype).block_elements == 256;
      const std::uint64_t scale = is_k ? 0x0400 : 0x1800;  // 6e-5 … 2.4e-4, to be multiplied; 0.002 … 0.008
      store_u16(p + (dtype == DType::kQ6_K ? 208 : 0), static_cast<std::uint16_t>(scale + rng.below(0x0800)));
      if (dtype == DType::kQ4_1) store_u16(p + 2, static_cast<std::uint16_t>(0xa400 + rng.below(0x0400)));
      if (dtype == DType::kQ4_K || dtype == DType::kQ5_K)
        store_u16(p + 2, static_cast<std::uint16_t>(0x1000 + rng.below(0x0400)));
    }
  }
  if (dtype == DType::kF8E4M3) {
    m.scales.stride = (k + kScaleBlock - 1) / kScaleBlock;
    m.scales.values.resize(static_cast<std::size_t>((n + kScaleBlock - 1) / kScaleBlock * m.scales.stride));
    for (float& scale : m.scales.values) scale = static_cast<float>(0.0005 + 0.001 * rng.uniform());
  }
  return m;
}

class CaseBuilder {
 public:
  explicit CaseBuilder(Backend& backend, std::uint64_t seed = 1) : backend_(backend), rng_(seed) {}

  Backend& backend() { return backend_; }
  Rng& rng() { return rng_; }

  Tensor zeros(std::int64_t rows, std::int64_t columns) { return tensor(DType::kF32, {rows, columns}); }
  Tensor codes(std::int64_t rows, std::int64_t columns) { return tensor(DType::kF8E4M3, {rows, columns}); }
  // Rows are padding elements further apart than they are wide.
  Tensor normal(std::int64_t rows, std::int64_t columns, float deviation = 1, std::int64_t padding = 0) {
    Tensor t = tensor(DType::kF32, {rows, columns + padding});
    for (std::int64_t i = 0; i < t.shape.elements(); ++i) t.f32()[i] = deviation * rng_.normal();
    return padding == 0 ? t : t.slice_columns(0, columns);
  }
  Tensor normal_vector(std::int64_t count, float mean, float deviation) {
    Tensor t = tensor(DType::kF32, {count});
    for (std::int64_t i = 0; i < count; ++i) t.f32()[i] = mean + deviation * rng_.normal();
    return t;
  }
  Tensor ids(const std::vector<std::int32_t>& values) {
    return ids(values, {static_cast<std::int64_t>(values.size())});
  }
  Tensor ids(const std::vector<std::int32_t>& values, Shape shape) {
    Tensor t = tensor(DType::kI32, shape);
    if (!values.empty()) std::memcpy(t.data, values.data(), values.size() * sizeof(std::int32_t));
    return t;
  }
  Tensor random_ids(std::int64_t count, std::int64_t limit) {
    std::vector<std::int32_t> values(static_cast<std::size_t>(count));
    for (auto& value : values) value = static_cast<std::int32_t>(rng_.below(static_cast<std::uint64_t>(limit)));
    return ids(values);
  }

  const Weight* weight(DType dtype, std::int64_t n, std::int64_t k) { return weight({{dtype, n}}, k); }
  // Parts of different types stacked along n.
  const Weight* weight(const std::vector<std::pair<DType, std::int64_t>>& parts, std::int64_t k) {
    std::vector<StoredMatrix> stored;
    WeightSource source;
    source.k = k;
    for (const auto& [dtype, n] : parts) stored.push_back(random_matrix(rng_, dtype, n, k));
    for (const StoredMatrix& m : stored) source.parts.push_back(m.part());
    weights_.push_back(backend_.pack(source));
    return weights_.back().get();
  }

  KvCache& cache(const KvSpec& spec) {
    caches_.push_back(backend_.make_kv_cache(spec));
    return *caches_.back();
  }

  template <class T>
  std::vector<T>& keep(std::vector<T> values) {
    auto owner = std::make_shared<std::vector<T>>(std::move(values));
    kept_.push_back(owner);
    return *owner;
  }

 private:
  Tensor tensor(DType dtype, Shape shape) {
    const std::size_t bytes = static_cast<std::size_t>(shape.elements()) * traits(dtype).block_bytes;
    buffers_.push_back(backend_.allocate_shared(std::max<std::size_t>(bytes, 64)));
    return Tensor(buffers_.back().data(), dtype, shape);
  }

  Backend& backend_;
  Rng rng_;
  std::deque<Buffer> buffers_;
  std::vector<std::unique_ptr<Weight>> weights_;
  std::vector<std::unique_ptr<KvCache>> caches_;
  std::vector<std::shared_ptr<void>> kept_;
};

}  // namespace tandem
