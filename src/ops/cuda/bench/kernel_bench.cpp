// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/bench/kernel_bench.h"

#include <algorithm>

#include "base/error.h"
#include "base/format.h"
#include "ops/cuda/bench/mfa_problem.h"
#include "ops/cuda/device.h"

namespace tandem::cuda {

namespace {

constexpr double kRotatedBytes = 256e6;  // more than the L2 cache by far

struct Bench {
  const KernelBenchOptions& options;
  const KernelBenchObserver& observer;
  GpuLimits limits;

  bool wants(const std::string& kernel, const std::string& shape) const {
    return (kernel + " " + shape).find(options.pattern) != std::string::npos;
  }
};

int copies_to_rotate(double bytes) {
  return static_cast<int>(kRotatedBytes / bytes) + 1;
}

void bench_mfa(const Bench& bench) {
  struct Row {
    std::int32_t sequences, tokens;
    bool deterministic = false;
  };
  for (const Row& row : std::vector<Row>{
           {128, 4096}, {64, 8192}, {256, 2048}, {1, 32768}, {8, 32768}, {128, 4096, true}, {1, 32768, true}}) {
    KernelMeasurement m;
    m.kernel = row.deterministic ? "mfa-decode-fp8-fixed-splits" : "mfa-decode-fp8";
    m.shape = format("{} x {}", row.sequences, row.tokens);
    if (!bench.wants(m.kernel, m.shape)) continue;
    MfaProblemOptions options{.lengths = std::vector<std::int32_t>(static_cast<std::size_t>(row.sequences), row.tokens),
                              .v_mean = .5f,
                              .deterministic = row.deterministic};
    options.copies = copies_to_rotate(static_cast<double>(row.sequences) * row.tokens * 512);
    MfaProblem problem(options);
    problem.run(nullptr, 0);
    synchronise();
    m.error = problem.relative_error({0, row.sequences - 1});
    m.microseconds = median_microseconds([&](Stream stream, int call) { problem.run(stream, call); },
                                         bench.options.samples, std::max(4, options.copies));
    m.bytes = problem.bytes();
    m.flops = problem.flops();
    m.flops_per_second_limit = bench.limits.fp8_flops_per_second;
    m.remark = problem.schedule().to_string();
    bench.observer.on_row(m);
  }
}

}  // namespace

void bench_kernels(const KernelBenchOptions& options, const KernelBenchObserver& observer) {
  const std::string missing = why_unusable(look_at_device());
  if (!missing.empty()) throw Error(ErrorCode::kUnavailable, missing);
  const Bench bench{options, observer, measure_gpu_limits()};
  observer.on_limits(bench.limits);
  bench_mfa(bench);
}

}  // namespace tandem::cuda
