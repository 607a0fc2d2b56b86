// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "engine/attention/return_sum.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ops/reference/reference_backend.h"

namespace tandem {
namespace {

using testing::ElementsAre;

// Two tokens, to two of four experts each, over FFN workers that hold two experts each.
class ReturnSumTest : public testing::TestWithParam<bool> {
 protected:
  static ModelConfig model() {
    ModelConfig model;
    model.layers = 1;
    model.hidden = 1;
    model.routed = {true};
    model.experts = 4;
    model.experts_per_token = 2;
    model.shared_width = 8;
    return model;
  }
  static WorkerConfig config(const std::string& layout) {
    WorkerConfig config;
    config.layout = parse_layout(layout);
    config.rows_max = 4;
    return config;
  }
  // Returned in order of (row, slot).
  static FfnOutput output(std::vector<float>& slot_rows, std::vector<float>& partial) {
    return {Tensor(slot_rows.data(), DType::kF32, {static_cast<std::int64_t>(slot_rows.size()), 1}),
            Tensor(partial.data(), DType::kF32, {static_cast<std::int64_t>(partial.size()), 1})};
  }
  std::vector<float> sum(const std::string& layout, bool device_rows, std::vector<FfnOutput> outputs) {
    std::vector<const FfnOutput*> returned;
    for (const FfnOutput& output : outputs) returned.push_back(&output);
    std::vector<float> out(2);
    ReturnSum sum(*backend_, config(layout), model(), device_rows);
    sum.run(0, 2, hand_over_, returned, Tensor(out.data(), DType::kF32, {2, 1}));
    return out;
  }

  std::unique_ptr<Backend> backend_ = make_reference_backend();
  std::vector<std::int32_t> ids_{3, 0, 1, 0};
  std::vector<float> weights_{2, 3, 5, 7};
  HandOver hand_over_{.hidden = {},
                      .expert_ids = Tensor(ids_.data(), DType::kI32, {2, 2}),
                      .expert_weights = Tensor(weights_.data(), DType::kF32, {2, 2}),
                      .codes = {},
                      .scales = {}};
};

TEST_P(ReturnSumTest, AddsASlotsRowsInTheirOrderWhoeverReturnedThem) {
  std::vector<float> first{0.25f, 1, 2}, second{1e8f};  // in another order a sum would lose its smaller terms
  std::vector<float> halves[2] = {{10, 20}, {30, 40}};
  const std::vector<float> sums = sum("1A2F", GetParam(), {output(first, halves[0]), output(second, halves[1])});
  EXPECT_THAT(sums, ElementsAre((1e8f + 0.25f) + (10.f + 30.f), (1.f + 2.f) + (20.f + 40.f)));
}

TEST_P(ReturnSumTest, WeighsPartsOfAWidthWhenTheyAreAddedUp) {
  std::vector<float> first{1, 2, 3, 4}, second{10, 20, 30, 40}, halves[2] = {{100, 200}, {300, 400}};
  const std::vector<float> sums = sum("1A1x2F", GetParam(), {output(first, halves[0]), output(second, halves[1])});
  EXPECT_THAT(sums, ElementsAre(2.f * 11 + 3.f * 22 + 400, 5.f * 33 + 7.f * 44 + 600));
}

TEST_P(ReturnSumTest, OneWorkersRowsAreInOrderAlready) {
  std::vector<float> rows{1, 2, 3, 4}, whole{10, 20};
  EXPECT_THAT(sum("local", GetParam(), {output(rows, whole)}), ElementsAre(13, 27));
}

INSTANTIATE_TEST_SUITE_P(HostAndDevice, ReturnSumTest, testing::Bool());

}  // namespace
}  // namespace tandem
