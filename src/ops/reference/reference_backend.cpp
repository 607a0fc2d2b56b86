// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/reference/reference_backend.h"

#include <algorithm>

#include "base/error.h"
#include "ops/page_format.h"
#include "ops/reference/reference.h"

namespace tandem {

namespace {

using reference::ReferenceKvCache;
using reference::ReferenceWeight;

class ReferenceBackend final : public Backend {
 public:
  std::string describe() const override { return "reference"; }
  Buffer allocate(std::size_t bytes) override { return allocate_host(bytes); }

  std::unique_ptr<Weight> pack(const WeightSource& source) override {
    auto weight = std::make_unique<ReferenceWeight>(source.n(), source.k, is_quantised(source));
    std::vector<float> row(source.k);
    std::int64_t n = 0;
    for (const WeightPart& part : source.parts) {
      for (std::int64_t i = 0; i < part.rows; ++i, ++n) {
        read_row(part, i, source.k, row.data());
        for (std::int64_t k = 0; k < source.k; ++k) weight->values[k * weight->n() + n] = row[k];
      }
    }
    return weight;
  }

  bool has_fp8_products(const Weight&) const override { return true; }
  bool has_int8_products(const Weight& weight) const override { return reference::of(&weight).quantised; }

  std::unique_ptr<KvCache> make_kv_cache(const KvSpec& spec) override {
    if (spec.dtype != DType::kF32 && spec.dtype != DType::kBF16 && spec.dtype != DType::kF8E4M3)
      throw Error(ErrorCode::kUnsupported, "the reference backend keeps KV as f32, bf16 or f8_e4m3");
    return std::make_unique<ReferenceKvCache>(spec);
  }

  void zero_block(KvCache& cache, std::int32_t block) override {
    ReferenceKvCache& c = reference::of(&cache);
    // No bytes where a pool has no layers, and none of V where it lies in K.
    std::fill_n(c.k_page(block, 0), c.k_page_bytes() * c.spec().layers, std::byte{0});
    std::fill_n(c.v_page(block, 0), c.v_page_bytes() * c.spec().layers, std::byte{0});
  }

  void export_page(const KvCache& cache, std::int32_t block, std::span<std::byte> page) override {
    const ReferenceKvCache& c = reference::of(&cache);
    write_page_header(c.spec(), page);
    std::byte* to = page.data() + sizeof(PageHeader);
    for (std::int32_t layer = 0; layer < c.spec().layers; ++layer) {
      std::memcpy(to, c.k_page(block, layer), c.k_page_bytes());
      to += c.k_page_bytes();
      std::copy_n(c.v_page(block, layer), c.v_page_bytes(), to);  // none where V lies in K
      to += c.v_page_bytes();
    }
  }

  void import_page(KvCache& cache, std::int32_t block, std::span<const std::byte> page) override {
    ReferenceKvCache& c = reference::of(&cache);
    check_page_header(c.spec(), page);
    const std::byte* from = page.data() + sizeof(PageHeader);
    for (std::int32_t layer = 0; layer < c.spec().layers; ++layer) {
      std::memcpy(c.k_page(block, layer), from, c.k_page_bytes());
      from += c.k_page_bytes();
      std::copy_n(from, c.v_page_bytes(), c.v_page(block, layer));
      from += c.v_page_bytes();
    }
  }

  void run(const Operator& op) override {
    std::visit([](const auto& o) { reference::run(o); }, op);
  }
};

}  // namespace

std::unique_ptr<Backend> make_reference_backend() {
  return std::make_unique<ReferenceBackend>();
}

}  // namespace tandem
