// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// That the benchmark measures what it should or says what is missing; not how fast anything is.
#include "ops/cuda/bench/kernel_bench.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "ops/cuda/bench/gpu_limits.h"
#include "ops/cuda/device.h"

namespace tandem::cuda {
namespace {

TEST(GpuLimits, AreMeasuredOrWhatIsMissingIsSaid) {
  const std::string missing = why_unusable(look_at_device());
  if (missing.empty()) {
    const GpuLimits limits = measure_gpu_limits();
    EXPECT_FALSE(limits.gpu.empty());
    EXPECT_GT(limits.read_bytes_per_second, 0);
    EXPECT_GT(limits.fp8_flops_per_second, limits.bf16_flops_per_second);
    return;
  }
  try {
    measure_gpu_limits();
    FAIL() << "limits without a GPU";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnavailable);
    EXPECT_EQ(error.message(), missing);
  }
}

TEST(KernelBench, MeasuresTheGpuOrSaysWhatIsMissing) {
  const std::string missing = why_unusable(look_at_device());
  GpuLimits limits;
  int rows = 0;
  const auto bench = [&] {
    bench_kernels({.pattern = "mfa-decode-bf16 1 x", .samples = 1},
                  {.on_limits = [&](const GpuLimits& measured) { limits = measured; },
                   .on_row =
                       [&](const KernelMeasurement& row) {
                         ++rows;
                         EXPECT_EQ(row.kernel + " " + row.shape, "mfa-decode-bf16 1 x 32768");
                         EXPECT_GT(row.microseconds, 0);
                         EXPECT_GT(row.bytes, 32768 * 512 * 2);
                         EXPECT_LT(row.error, 7e-3);
                       }});
  };
  if (missing.empty()) {
    bench();
    EXPECT_EQ(rows, 1);
    EXPECT_GT(limits.read_bytes_per_second, 0);
    return;
  }
  try {
    bench();
    FAIL() << "a benchmark without a GPU";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnavailable);
    EXPECT_EQ(error.message(), missing);
  }
}

}  // namespace
}  // namespace tandem::cuda
