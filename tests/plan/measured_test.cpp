// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "plan/measured.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/format.h"
#include "tests/base/error_of.h"
#include "tests/plan/stage_rows.h"

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

TEST(MeasuredStages, KnowTheClockThatTheyWereMeasuredAt) {
  KernelMeasurements measured = parse_kernel_measurements(kGpu + stage_lines(), "k.jsonl");
  const double clock = 1700. / 1980;
  for (StageKernel& k : measured.stages) {
    EXPECT_DOUBLE_EQ(k.clock, clock);
    if (k.kernel == "flag") k.clock = .3;                         // one reading of a batch
    if (k.stage == "ffn" && k.rows == 2048) k.clock = clock / 2;  // another batch
  }
  const StageLadders ladders(measured.stages, "k.jsonl");
  EXPECT_NEAR(ladders.attention(64, 4096, true).latency, 55e-6, 1e-12);
  EXPECT_NEAR(ladders.at_full_clock().attention(64, 4096, true).latency, clock * 55e-6, 1e-12);
  EXPECT_NEAR(ladders.at_full_clock().ffn(1024, 16, true).busy, clock * 43e-6, 1e-12);
  EXPECT_NEAR(ladders.at_full_clock().ffn(2048, 16, true).busy, clock * 43e-6, 1e-12)
      << "half the clock, twice the time";
  // Nobody says which clock is the highest, or the driver does not tell.
  for (const char* with : {"", "\"clock_mhz\":0,"}) {
    std::string gpu = kGpu;
    gpu.replace(gpu.find("\"clock_mhz\":1980,"), 17, with);
    const KernelMeasurements unknown = parse_kernel_measurements(gpu + stage_lines(), "k.jsonl");
    for (const StageKernel& k : unknown.stages) EXPECT_EQ(k.clock, 1);
    const StageLadders same(unknown.stages, "k.jsonl");
    EXPECT_EQ(&same.at_full_clock(), &same);
  }
}

TEST(MeasuredStages, AreThoseOfTheModelAndItsCache) {
  const KernelMeasurements measured = parse_kernel_measurements(kGpu + stage_lines(), "k.jsonl");
  EXPECT_EQ(measured.stage_model, "step3");
  EXPECT_EQ(measured.stages.size(), stage_rows().size());
  EXPECT_TRUE(measured.kernels.empty());
  const ModelShape step3 = find_shape("step3");
  const MeasuredStages found = measured_stages(measured, step3, DType::kF8E4M3, "k.jsonl");
  ASSERT_TRUE(found.ladders);
  EXPECT_EQ(found.note, "every kernel of step3's stages");
  EXPECT_NEAR(found.ladders->attention(64, 4096, true).latency, 55e-6, 1e-12);
  EXPECT_NEAR(found.ladders->ffn(1024, 16, true).busy, 43e-6, 1e-12);

  const MeasuredStages other = measured_stages(measured, find_shape("qwen3_32b"), DType::kF8E4M3, "k.jsonl");
  EXPECT_FALSE(other.ladders);
  EXPECT_EQ(other.note, "stages of step3, which is another model");
  const MeasuredStages bf16 = measured_stages(measured, step3, DType::kBF16, "k.jsonl");
  EXPECT_FALSE(bf16.ladders);
  EXPECT_EQ(bf16.note, "stages with an FP8 cache, bf16 is asked for");
  const MeasuredStages none =
      measured_stages(parse_kernel_measurements(kGpu, "k.jsonl"), step3, DType::kF8E4M3, "k.jsonl");
  EXPECT_FALSE(none.ladders);
  EXPECT_EQ(none.note, "no stages (tandem bench kernels --stages)");
}

// A name in a file is one that the program brings along, never a path.
TEST(MeasuredStages, OfAnUnknownModelAreNotUsed) {
  std::string lines = stage_lines();
  for (std::size_t at; (at = lines.find("step3")) != std::string::npos;) lines.replace(at, 5, "/etc/x.toml");
  const KernelMeasurements measured = parse_kernel_measurements(kGpu + lines, "k.jsonl");
  EXPECT_FALSE(measured_stages(measured, find_shape("step3"), DType::kF8E4M3, "k.jsonl").ladders);
}

TEST(ParseKernelMeasurements, SaysWhatIsWrongWithAStage) {
  const auto error = [](const std::string& change, const std::string& to) {
    std::string line = stage_lines();
    line.resize(line.find('\n') + 1);
    const std::size_t at = line.find(change);
    EXPECT_NE(at, std::string::npos) << change;
    line.replace(at, change.size(), to);
    return error_of([&] { parse_kernel_measurements(kGpu + stage_lines() + line, "k.jsonl"); }).message();
  };
  const std::string where = format("k.jsonl: line {}: ", stage_rows().size() + 2);
  EXPECT_EQ(error(R"("attention")", R"("embedding")"), where + "stage 'embedding' is none of attention, head, ffn");
  EXPECT_EQ(error(R"("step3")", R"("qwen3_32b")"), where + "a stage of qwen3_32b where those before are of step3");
  EXPECT_EQ(error(R"("model":"step3",)", ""), where + "model has to be a text");
  EXPECT_EQ(error(R"("kernel":"norm-in",)", ""), where + "kernel has to be a text");
  EXPECT_EQ(error(R"("rows":64)", R"("rows":0)"), where + "rows has to be a number between 1 and 10000000");
  EXPECT_EQ(error(R"("context":4096,)", ""), where + "context has to be a number between 1 and 1000000000");
  EXPECT_EQ(error(R"("microseconds":1)", R"("microseconds":0)"),
            where + "microseconds has to be a number between 0.001 and 1000000000");
  EXPECT_EQ(error(R"("microseconds_beside":0.5)", R"("microseconds_beside":"x")"),
            where + "microseconds_beside has to be a number between 0 and 1000000000");
  EXPECT_EQ(error(R"("stage":"attention")", R"("stage":"ffn")"),
            where + "gpus has to be a number between 1 and 1000000");
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
