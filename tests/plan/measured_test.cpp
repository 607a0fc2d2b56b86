// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "plan/measured.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/format.h"
#include "tests/base/error_of.h"

namespace tandem {
namespace {

constexpr const char* kGpu =
    R"({"gpu":"G","clock_mhz":1980,"read_bytes_per_second":4.6e12,"fp8_flops_per_second":1.6e15,"bf16_flops_per_second":8e14})"
    "\n";

std::string row(const std::string& kernel, const std::string& shape, double us, double bandwidth, double flops) {
  return format(
      R"({{"kernel":"{}","shape":"{}","microseconds":{},"bytes":1e9,"flops":1e9,"fraction_of_bandwidth":{},"fraction_of_flops":{},"relative_error":0,"remark":""}})"
      "\n",
      kernel, shape, us, bandwidth, flops);
}

TEST(MeasuredEfficiency, TakesTheNearestShapeOfEachPart) {
  const std::string lines =
      kGpu + row("mfa-decode-fp8", "128 x 4096", 78, 0.78, 0.4) + row("mfa-decode-fp8", "8 x 32768", 49, 0.61, 0.3) +
      row("mfa-decode-bf16", "128 x 4096", 125, 0.94, 0.2) + row("fp8-q-down-k-v", "128", 10, 0.4, 0.1) +
      row("fp8-q-up", "128", 20, 0.5, 0.1) + row("fp8-o", "128", 30, 0.8, 0.1) +
      row("experts-fp8", "3 x 32", 90, 0.75, 0.2) + row("experts-fp8", "3 x 128", 106, 0.7, 0.5);
  const KernelMeasurements measured = parse_kernel_measurements(lines, "k.jsonl");
  EXPECT_EQ(measured.gpu, "G");
  EXPECT_EQ(measured.kernels.size(), 8u);
  const MeasuredEfficiency found = measured_efficiency(measured, find_shape("step3"), DType::kF8E4M3, 8192);
  EXPECT_EQ(found.efficiency.attention, 0.78);
  EXPECT_NEAR(found.efficiency.projection, (4 + 10 + 24) / 60.0, 1e-12);
  EXPECT_EQ(found.efficiency.ffn, 0.7);
  EXPECT_EQ(found.efficiency.network, 1);
  EXPECT_THAT(found.missing, testing::IsEmpty());
  EXPECT_THAT(found.used, testing::Contains("attention 0.78 (mfa-decode-fp8 128 x 4096)"));
  EXPECT_EQ(measured_efficiency(measured, find_shape("step3"), DType::kBF16, 8192).efficiency.attention, 0.94);
  const Hardware h = with_measured_rates(find_hardware("h200"), measured);
  EXPECT_EQ(h.memory_bandwidth, 4.6e12);
  EXPECT_EQ(h.fp8_flops, 1.6e15);
  EXPECT_EQ(h.memory_bytes, find_hardware("h200").memory_bytes);
}

TEST(MeasuredEfficiency, WhatWasNotMeasuredIsNamedAndIdeal) {
  const KernelMeasurements measured = parse_kernel_measurements(kGpu, "k.jsonl");
  const MeasuredEfficiency found = measured_efficiency(measured, find_shape("qwen3_32b"), DType::kBF16, 8192);
  EXPECT_EQ(found.efficiency, Efficiency{});
  EXPECT_THAT(found.missing, testing::ElementsAre("attention", "projections", "experts"));
}

TEST(MeasuredEfficiency, IsNeverAboveOne) {
  const KernelMeasurements measured =
      parse_kernel_measurements(kGpu + row("experts-fp8", "3 x 128", 1, 1.2, 0), "k.jsonl");
  EXPECT_EQ(measured_efficiency(measured, find_shape("step3"), DType::kF8E4M3, 8192).efficiency.ffn, 1);
}

TEST(ParseKernelMeasurements, SaysWhichLineIsWrong) {
  const auto error = [](const std::string& text) {
    return error_of([&] { parse_kernel_measurements(text, "k.jsonl"); }).message();
  };
  EXPECT_EQ(error(""), "k.jsonl: no line has gpu and its rates");
  EXPECT_EQ(error(std::string(kGpu) + "[1]\n"), "k.jsonl: line 2: no JSON object");
  EXPECT_EQ(error("\n{\"kernel\":\"x\"}\n"), "k.jsonl: line 2: shape has to be a text");
  EXPECT_EQ(error(std::string(kGpu) + row("x", "1", -1, 0.5, 0.5)),
            "k.jsonl: line 2: microseconds has to be a number between 0.001 and 1000000000000");
  EXPECT_EQ(error(std::string(kGpu) + row("x", "1", 1, 0, 0)), "k.jsonl: line 2: both fractions are below 0.001");
  EXPECT_EQ(error(std::string(kGpu) + row("x", "1", 1, 3, 0)),
            "k.jsonl: line 2: fraction_of_bandwidth has to be a number between 0 and 2");
}

}  // namespace
}  // namespace tandem
