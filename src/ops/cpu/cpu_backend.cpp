// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cpu/cpu_backend.h"

#include "base/error.h"
#include "base/format.h"
#include "ops/cpu/cpu_kv_cache.h"
#include "ops/cpu/machine.h"
#include "ops/cpu/packed_weight.h"
#include "ops/cpu/variants.h"
#include "ops/page_format.h"

namespace tandem {

namespace {

constexpr int kThreadsMax = 1024;

class CpuBackend final : public Backend {
 public:
  CpuBackend(const cpu::ChosenKernels& chosen, int threads)
      : variant_(chosen.name), machine_(*chosen.kernels, threads) {}

  std::string describe() const override {
    const int threads = machine_.team.threads();
    return format("cpu/{}, {} thread{}", variant_, threads, threads == 1 ? "" : "s");
  }
  Buffer allocate(std::size_t bytes) override { return allocate_host(bytes); }
  std::unique_ptr<Weight> pack(const WeightSource& source) override {
    return cpu::PackedWeight::pack(source, machine_.team);
  }
  bool has_int8_products(const Weight& weight) const override { return cpu::packed(&weight).is_quantised(); }
  std::unique_ptr<KvCache> make_kv_cache(const KvSpec& spec) override {
    return std::make_unique<cpu::CpuKvCache>(spec);
  }
  void zero_block(KvCache& cache, std::int32_t block) override { cpu::cpu_cache(cache).zero_block(block); }
  void export_page(const KvCache& cache, std::int32_t block, std::span<std::byte> page) override {
    write_page_header(cache.spec(), page);
    cpu::cpu_cache(cache).export_block(block, page.data() + sizeof(PageHeader));
  }
  void import_page(KvCache& cache, std::int32_t block, std::span<const std::byte> page) override {
    check_page_header(cache.spec(), page);
    cpu::cpu_cache(cache).import_block(block, page.data() + sizeof(PageHeader));
  }
  void run(const Operator& op) override {
    std::visit(
        [&]<class Op>(const Op& o) {
          if constexpr (Fp8Operator<Op>)
            throw Error(ErrorCode::kUnsupported, format("the cpu backend has no FP8 arithmetic: {}", name(op)));
          else
            cpu::run(machine_, o);
        },
        op);
  }

 private:
  std::string variant_;
  cpu::Machine machine_;
};

}  // namespace

std::unique_ptr<Backend> make_cpu_backend(const CpuOptions& options) {
  if (options.threads < 1 || options.threads > kThreadsMax)
    throw Error(ErrorCode::kInvalidArgument, format("{} threads, the range is 1 to {}", options.threads, kThreadsMax));
  return std::make_unique<CpuBackend>(cpu::choose_kernels(options.variant), options.threads);
}

}  // namespace tandem
