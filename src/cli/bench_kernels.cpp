// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// tandem bench kernels: single kernels of a GPU at the shapes that models have.
#include <CLI/CLI.hpp>
#include <cstdio>

#include "base/format.h"
#include "base/json.h"
#include "cli/command.h"
#include "ops/cuda/bench/kernel_bench.h"

namespace tandem {

namespace {

struct Options {
  cuda::KernelBenchOptions bench;
  std::string device = "cuda";
  bool json = false;
};

void print_limits(const cuda::GpuLimits& limits, bool json) {
  if (json) {
    const OrderedJson line{{"gpu", limits.gpu},
                           {"clock_mhz", limits.clock_mhz},
                           {"read_bytes_per_second", limits.read_bytes_per_second},
                           {"fp8_flops_per_second", limits.fp8_flops_per_second},
                           {"bf16_flops_per_second", limits.bf16_flops_per_second}};
    std::fputs((line.dump() + "\n").c_str(), stdout);
  } else {
    std::fputs(format("{}, up to {} MHz: reads {:.2f} TB/s, does {:.0f} TFLOP/s in FP8 and {:.0f} in BF16\n",
                      limits.gpu, limits.clock_mhz, limits.read_bytes_per_second * 1e-12,
                      limits.fp8_flops_per_second * 1e-12, limits.bf16_flops_per_second * 1e-12)
                   .c_str(),
               stdout);
  }
  std::fflush(stdout);
}

void print_row(const cuda::KernelMeasurement& m, const cuda::GpuLimits& limits, bool json) {
  const double bytes = m.bytes / m.microseconds * 1e6, flops = m.flops / m.microseconds * 1e6;
  if (json) {
    const OrderedJson line{{"kernel", m.kernel},
                           {"shape", m.shape},
                           {"microseconds", m.microseconds},
                           {"bytes", m.bytes},
                           {"flops", m.flops},
                           {"fraction_of_bandwidth", bytes / limits.read_bytes_per_second},
                           {"fraction_of_flops", flops / m.flops_per_second_limit},
                           {"relative_error", m.error},
                           {"remark", m.remark}};
    std::fputs((line.dump() + "\n").c_str(), stdout);
  } else {
    std::fputs(format("{:<28} {:<14} {:>8.1f} us {:>6.2f} TB/s {:>4.0f} % of bandwidth {:>7.0f} TFLOP/s {:>3.0f} %  "
                      "error {:.1e}  {}\n",
                      m.kernel, m.shape, m.microseconds, bytes * 1e-12, 100 * bytes / limits.read_bytes_per_second,
                      flops * 1e-12, 100 * flops / m.flops_per_second_limit, m.error, m.remark)
                   .c_str(),
               stdout);
  }
  std::fflush(stdout);
}

int run_kernels(const Options& options) {
  cuda::GpuLimits limits;
  cuda::bench_kernels(options.bench,
                      {.on_limits =
                           [&](const cuda::GpuLimits& measured) {
                             limits = measured;
                             print_limits(limits, options.json);
                           },
                       .on_row = [&](const cuda::KernelMeasurement& row) { print_row(row, limits, options.json); }});
  return 0;
}

}  // namespace

Action declare_bench_kernels(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  app.add_option("--device", options->device, "whose kernels")->check(CLI::IsMember({"cuda"}))->capture_default_str();
  app.add_option("--only", options->bench.pattern, "rows with this in their name or shape");
  app.add_option("--samples", options->bench.samples, "the median of so many")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  app.add_flag("--json", options->json, "one JSON object a line");
  return [options] { return run_kernels(*options); };
}

}  // namespace tandem
