// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A backend that passes everything on to another; decorators override what they add to. It does not run behind and
// begins no draws unless it says so: who looks at every operator sees all of them in run().
#pragma once

#include <memory>
#include <utility>

#include "ops/backend.h"

namespace tandem {

class ForwardingBackend : public Backend {
 public:
  explicit ForwardingBackend(std::unique_ptr<Backend> inner) : inner_(std::move(inner)) {}
  std::string describe() const override { return inner_->describe(); }
  Buffer allocate(std::size_t bytes) override { return inner_->allocate(bytes); }
  Buffer allocate_shared(std::size_t bytes) override { return inner_->allocate_shared(bytes); }
  bool host_memory() const override { return inner_->host_memory(); }
  void copy(void* to, const void* from, std::size_t bytes) override { inner_->copy(to, from, bytes); }
  std::unique_ptr<Weight> pack(const WeightSource& source) override { return inner_->pack(source); }
  std::int64_t weights_max() const override { return inner_->weights_max(); }
  bool has_fp8_products(const Weight& weight) const override { return inner_->has_fp8_products(weight); }
  bool has_int8_products(const Weight& weight) const override { return inner_->has_int8_products(weight); }
  std::unique_ptr<KvCache> make_kv_cache(const KvSpec& spec) override { return inner_->make_kv_cache(spec); }
  void zero_block(KvCache& cache, std::int32_t block) override { inner_->zero_block(cache, block); }
  void export_page(const KvCache& cache, std::int32_t block, std::span<std::byte> page) override {
    inner_->export_page(cache, block, page);
  }
  void import_page(KvCache& cache, std::int32_t block, std::span<const std::byte> page) override {
    inner_->import_page(cache, block, page);
  }
  void run(const Operator& op) override { inner_->run(op); }
  void synchronise() override { inner_->synchronise(); }
  std::unique_ptr<CopyLane> make_copy_lane() override { return inner_->make_copy_lane(); }

 protected:
  Backend& inner() { return *inner_; }
  const Backend& inner() const { return *inner_; }

 private:
  std::unique_ptr<Backend> inner_;
};

}  // namespace tandem
