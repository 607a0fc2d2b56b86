// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/checked.h"

#include "ops/forwarding.h"

namespace tandem {

namespace {

class CheckedBackend final : public ForwardingBackend {
 public:
  using ForwardingBackend::ForwardingBackend;
  std::string describe() const override { return ForwardingBackend::describe() + ", checked"; }
  void zero_block(KvCache& cache, std::int32_t block) override {
    check_block(cache, block);
    ForwardingBackend::zero_block(cache, block);
  }
  void export_page(const KvCache& cache, std::int32_t block, std::span<std::byte> page) override {
    check_block(cache, block);
    ForwardingBackend::export_page(cache, block, page);
  }
  void import_page(KvCache& cache, std::int32_t block, std::span<const std::byte> page) override {
    check_block(cache, block);
    ForwardingBackend::import_page(cache, block, page);
  }
  void run(const Operator& op) override {
    validate(op, inner().host_memory() ? Ranges::kChecked : Ranges::kOutOfReach);
    ForwardingBackend::run(op);
  }

 private:
  static void check_block(const KvCache& cache, std::int32_t block) {
    TANDEM_CHECK(block >= 0 && block < cache.spec().blocks, "block outside the cache");
  }
};

}  // namespace

std::unique_ptr<Backend> make_checked_backend(std::unique_ptr<Backend> inner) {
  return std::make_unique<CheckedBackend>(std::move(inner));
}

}  // namespace tandem
