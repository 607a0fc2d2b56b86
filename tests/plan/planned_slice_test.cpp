// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The plan beside what was measured: stages out of recorded kernels (h200_stages.jsonl: tandem bench kernels --stages
// on two H200s, 2026-11-29) against tandem bench slice, one side alone, on the same GPUs and day. docs/planning.md has
// the tables.
#include <gtest/gtest.h>

#include "plan/decode_model.h"
#include "plan/measured.h"
#include "plan/plan_file.h"

namespace tandem {
namespace {

constexpr const char* kRecorded = "tests/plan/h200_stages.jsonl";
constexpr double kLayers = 61;

DecodeModel model_at(std::int64_t context) {
  const KernelMeasurements measured = parse_kernel_measurements(read_plan_file(kRecorded), kRecorded);
  const ModelShape step3 = find_shape("step3");
  DecodeSettings s{.context = context, .precision = {}, .attention = {}, .ffn = {}};
  s.attention = s.ffn = with_measured_rates(find_hardware("h200"), measured);
  s.attention.network_bandwidth = s.ffn.network_bandwidth = 4.5e11;  // NVLink
  s.precision.kv = DType::kF8E4M3;
  s.attention_ladders = s.ffn_ladders = measured_stages(measured, step3, DType::kF8E4M3, kRecorded).ladders;
  return DecodeModel(step3, s);
}

// Microseconds of a layer, over all of them; of attention with its share of the head, as the slice measures it.
struct Stages {
  double attention = 0, ffn = 0;
};
Stages stages_of(const DecodeModel& model, const Candidate& c, double rows) {
  Stages stages;
  for (const LayerLoad& kind : model.kinds()) {
    const StageTimes t = model.stages(c, kind, rows);
    stages.attention += 1e6 * kind.count * t.attention / kLayers;
    stages.ffn += 1e6 * kind.count * t.ffn / kLayers;
  }
  stages.attention += 1e6 * model.settings().attention_ladders->head(rows).busy / kLayers;
  return stages;
}

TEST(PlannedSlice, StagesAreWithinATenthOfTheMeasuredOnes) {
  struct Row {
    std::int64_t context;
    Candidate c;
    double rows, attention, ffn;  // measured, 0: was not
  };
  const Row rows[] = {
      {4096, {2, 2, 3, 1}, 128, 184.0, 218.9},  {4096, {2, 2, 3, 1}, 104, 166.9, 182.2},
      {4096, {3, 2, 3, 1}, 104, 0, 252.7},      {4096, {1, 1, 3, 1}, 128, 0, 259.6},
      {8192, {4, 2, 3, 1}, 88, 218.6, 255.6},   {8192, {4, 2, 4, 1}, 56, 153.2, 0},
      {32768, {16, 2, 3, 1}, 22, 185.7, 255.4}, {32768, {16, 2, 4, 1}, 14, 136.4, 0},
  };
  for (const Row& row : rows) {
    const Stages planned = stages_of(model_at(row.context), row.c, row.rows);
    SCOPED_TRACE(row.rows);
    if (row.attention > 0) {
      EXPECT_NEAR(planned.attention / row.attention, 1, 0.1);
    }
    if (row.ffn > 0) {
      EXPECT_NEAR(planned.ffn / row.ffn, 1, 0.1);
    }
  }
}

// Both sides together, on two other H200s (2026-11-28): within a tenth where one of them is the slower by far or there
// are four micro-batches. Three on equal sides wait for each other more than the plan knows.
TEST(PlannedSlice, TimesPerTokenAreWithinATenthWhereASideIsTheSlower) {
  struct Row {
    std::int64_t context;
    Candidate c;
    double rows, ms;
    bool is_near;
  };
  const Row rows[] = {
      {4096, {2, 2, 4, 1}, 104, 46.0, true},  {4096, {3, 2, 3, 1}, 104, 49.5, true},
      {8192, {4, 2, 3, 1}, 88, 51.4, true},   {8192, {4, 2, 4, 1}, 56, 49.8, true},
      {32768, {16, 2, 3, 1}, 22, 50.5, true}, {32768, {16, 2, 4, 1}, 14, 49.4, true},
      {4096, {2, 2, 3, 1}, 128, 45.2, false}, {4096, {2, 2, 3, 1}, 104, 39.9, false},
      {4096, {1, 1, 3, 1}, 128, 51.5, false},
  };
  for (const Row& row : rows) {
    const double ratio = 1e3 * model_at(row.context).tpot(row.c, row.rows) / row.ms;
    SCOPED_TRACE(row.rows);
    EXPECT_GT(ratio, row.is_near ? 0.9 : 0.8);
    EXPECT_LT(ratio, 1.02);  // the plan waits for nothing that the slice does not wait for
  }
}

}  // namespace
}  // namespace tandem
