// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The plan beside what was measured: stages out of recorded kernels (h200_stages.jsonl: tandem bench kernels --stages
// --json on an H200, 2026-11-30) against tandem bench slice --json (h200_slices.jsonl): one side alone on the same GPU
// right after, then both together on two other pairs of H200s the same day. docs/planning.md has the tables. Lines that
// the commands print anew may stand in place of these.
#include <gtest/gtest.h>

#include <cstdio>
#include <string>
#include <vector>

#include "base/format.h"
#include "base/json.h"
#include "plan/decode_model.h"
#include "plan/measured.h"
#include "plan/plan_file.h"

namespace tandem {
namespace {

constexpr const char* kKernels = "tests/plan/h200_stages.jsonl";
constexpr const char* kSlices = "tests/plan/h200_slices.jsonl";

struct Slice {
  std::string deployment;
  std::int64_t context = 0;
  Candidate candidate;
  double rows = 0, layers = 0;
  double attention_us = 0, ffn_us = 0;  // of a layer, alone; 0: not measured
  double step_us = 0;                   // 0: not both together

  std::string name() const { return format("{} {} {} x {}", deployment, context, candidate.micro_batches, rows); }
};

// A line of one side alone has that side's step, which is no deployment's.
std::vector<Slice> slices() {
  std::vector<Slice> all;
  const std::string text = read_plan_file(kSlices);
  for (std::size_t begin = 0, end = 0; begin < text.size(); begin = end + 1) {
    end = std::min(text.find('\n', begin), text.size());
    const Json line = parse_json(text.substr(begin, end - begin), kSlices);
    Slice s{.deployment = line.at("deployment"), .context = line.at("context"), .candidate = {}};
    EXPECT_EQ(std::sscanf(s.deployment.c_str(), "%dA%dF", &s.candidate.attention_servers, &s.candidate.ffn_servers), 2);
    s.candidate.micro_batches = line.at("micro_batches");
    s.candidate.tensor_parallel = 1;
    s.rows = line.at("rows");
    s.layers = line.at("layers");
    EXPECT_EQ(line.at("zipf_exponent"), 0) << "the plan draws experts evenly";
    if (line.contains("attention")) s.attention_us = line["attention"].at("layer_us");
    if (line.contains("ffn")) s.ffn_us = line["ffn"].at("layer_us");
    if ((s.attention_us > 0) == (s.ffn_us > 0)) s.step_us = line.at("step_us");
    all.push_back(std::move(s));
  }
  return all;
}

constexpr double kStageTolerance = .08, kStepTolerance = .07;

DecodeModel model_at(std::int64_t context) {
  const KernelMeasurements measured = parse_kernel_measurements(read_plan_file(kKernels), kKernels);
  const ModelShape step3 = find_shape("step3");
  DecodeSettings s{.context = context, .precision = {}, .attention = {}, .ffn = {}};
  s.attention = s.ffn = with_measured_rates(find_hardware("h200"), measured);
  s.attention.network_bandwidth = s.ffn.network_bandwidth = 4.5e11;  // NVLink
  s.precision.kv = DType::kF8E4M3;
  s.attention_ladders = s.ffn_ladders = measured_stages(measured, step3, DType::kF8E4M3, kKernels).ladders;
  return DecodeModel(step3, s);
}

// Microseconds of a layer, over all of them; of attention with its share of the head, as the slice measures it.
struct Stages {
  double attention = 0, ffn = 0;
};
Stages stages_of(const DecodeModel& model, const Slice& slice) {
  Stages stages;
  for (const LayerLoad& kind : model.kinds()) {
    const StageTimes t = model.stages(slice.candidate, kind, slice.rows);
    stages.attention += 1e6 * kind.count * t.attention / slice.layers;
    stages.ffn += 1e6 * kind.count * t.ffn / slice.layers;
  }
  stages.attention += 1e6 * model.settings().attention_ladders->head(slice.rows).busy / slice.layers;
  return stages;
}

TEST(PlannedSlice, StagesAreNearTheMeasuredOnes) {
  for (const Slice& slice : slices()) {
    const Stages planned = stages_of(model_at(slice.context), slice);
    SCOPED_TRACE(slice.name());
    const auto compare = [&](const char* stage, double ours, double measured) {
      if (measured == 0) return;
      std::printf("%-24s %s planned %5.1f us, measured %5.1f: %.2f\n", slice.name().c_str(), stage, ours, measured,
                  ours / measured);
      EXPECT_NEAR(ours / measured, 1, kStageTolerance) << stage;
    };
    compare("A", planned.attention, slice.attention_us);
    compare("F", planned.ffn, slice.ffn_us);
  }
}

// At 4K, 8K and 32K, with two micro-batches to four.
TEST(PlannedSlice, TimesPerTokenAreNearTheMeasuredOnes) {
  int compared = 0;
  for (const Slice& slice : slices()) {
    if (slice.step_us == 0) continue;
    const DecodeModel model = model_at(slice.context);
    const double planned = 1e6 * model.tpot(slice.candidate, slice.rows),
                 least = 1e6 * model.tpot_min(slice.candidate, slice.rows);
    std::printf("%-24s planned %5.1f ms, measured %5.1f: %.2f, by the stages' rule %.2f\n", slice.name().c_str(),
                planned * 1e-3, slice.step_us * 1e-3, planned / slice.step_us, least / slice.step_us);
    EXPECT_NEAR(planned / slice.step_us, 1, kStepTolerance) << slice.name();
    ++compared;
  }
  EXPECT_GE(compared, 20);
}

// What the simulation is for: two micro-batches leave a side with nothing to do while the other works, three of such
// sizes do not.
TEST(PlannedSlice, WaitingForEachOtherIsPartOfIt) {
  const DecodeModel model = model_at(4096);
  const auto waiting = [&](std::int32_t micro_batches) {
    const Candidate c{2, 2, micro_batches, 1};
    return model.tpot(c, 256) / model.tpot_min(c, 256);
  };
  EXPECT_GT(waiting(2), 1.03);
  EXPECT_LT(waiting(3), 1.01);
}

// Sums of kernels and whole layers are measured apart from each other: a check of both.
TEST(PlannedSlice, LayersTakeAboutWhatTheirKernelsDo) {
  const KernelMeasurements measured = parse_kernel_measurements(read_plan_file(kKernels), kKernels);
  const StageLadders ladders(measured.stages, kKernels);
  for (const double rows : {16., 64., 104., 128.}) {
    const StageCost cost = ladders.attention(rows, 4096, true);
    EXPECT_GT(cost.latency, cost.busy) << rows;
    EXPECT_LT(cost.latency, 2 * cost.busy) << rows;
  }
  for (const double rows : {1024., 1664., 2048., 2816.}) {
    const FfnPieces p = ladders.ffn_pieces(rows, 16, true);
    const FfnPieces::Products products = ladders.ffn_products(rows, 16, true);
    const double kernels = p.copy_in + p.gather + products.gate_up + products.down + p.copy_out + p.combine + p.flag;
    EXPECT_GT(p.gap, 0) << rows;
    EXPECT_LT(6 * p.gap, 0.3 * kernels) << rows;
  }
}

}  // namespace
}  // namespace tandem
