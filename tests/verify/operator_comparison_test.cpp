// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "verify/operator_comparison.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "base/rng.h"
#include "ops/reference/reference_backend.h"
#include "verify/comparing_backend.h"

namespace tandem {
namespace {

// The packed head of a recorded checkpoint, through a comparing backend.
class OperatorComparisonTest : public testing::Test {
 protected:
  OperatorComparisonTest() {
    const TensorInfo& info = *checkpoint_->find("lm_head.weight");
    n_ = info.shape[0];
    k_ = info.shape[1];
    source_.k = k_;
    source_.parts.push_back({checkpoint_->data(info).data(), *info.dtype, n_, row_bytes(*info.dtype, k_), {}, {}});
    weight_ = backend_->pack(source_);
    Rng rng(1);
    x_.resize(static_cast<std::size_t>(3 * k_));
    for (float& value : x_) value = rng.normal();
    out_.resize(static_cast<std::size_t>(3 * n_));
  }
  void multiply() {
    backend_->run(MatMul{Tensor(out_.data(), DType::kF32, {3, n_}), Tensor(x_.data(), DType::kF32, {3, k_}),
                         weight_.get(), KSlices::whole(k_)});
  }

  const std::unique_ptr<Checkpoint> checkpoint_ = Checkpoint::open("tests/goldens/step3_text_bf16");
  OperatorComparison comparison_{*checkpoint_, read_config(*checkpoint_)};
  const std::unique_ptr<Backend> backend_ = make_comparing_backend(make_reference_backend(), comparison_);
  std::int64_t n_ = 0, k_ = 0;
  WeightSource source_;
  std::unique_ptr<Weight> weight_;
  std::vector<float> x_, out_;
};

TEST_F(OperatorComparisonTest, ComparesWhileItIsOn) {
  multiply();
  EXPECT_TRUE(comparison_.results().empty());
  EXPECT_NE(out_[0], 0) << "run all the same";
  comparison_.compare(true);
  multiply();
  multiply();
  comparison_.compare(false);
  multiply();
  ASSERT_EQ(comparison_.results().size(), 1u);
  const ComparedOperator result = comparison_.results().front();
  EXPECT_EQ(result.name, "head");
  EXPECT_EQ(result.compared, 2);
  EXPECT_EQ(result.largest, 0) << "the reference differs from itself";
}

TEST_F(OperatorComparisonTest, WhatIsNotFiniteFails) {
  comparison_.compare(true);
  x_[0] = std::numeric_limits<float>::quiet_NaN();
  multiply();
  EXPECT_TRUE(std::isinf(comparison_.results().front().largest));
  EXPECT_FALSE(comparison_.results().front().passed());
}

TEST_F(OperatorComparisonTest, SamplesReachFromTheFirstOutputToTheLast) {
  const SampledWeight sample = comparison_.sample(weight_.get());
  EXPECT_EQ(sample.outputs.front(), 0);
  EXPECT_EQ(sample.outputs.back(), n_ - 1);
  EXPECT_GT(sample.outputs.size(), 20u);
  EXPECT_EQ(sample.weight->n(), static_cast<std::int64_t>(sample.outputs.size()));
  EXPECT_EQ(sample.weight->k(), k_);
}

TEST_F(OperatorComparisonTest, ASourceThatDoesNotLastIsSampledWhenItIsPacked) {
  std::vector<float> passing(static_cast<std::size_t>(16 * k_), 1);
  const WeightSource source{{{reinterpret_cast<const std::byte*>(passing.data()),
                              DType::kF32,
                              16,
                              static_cast<std::size_t>(k_) * sizeof(float),
                              {},
                              {}}},
                            k_};
  const std::unique_ptr<Weight> weight = backend_->pack(source);
  passing.assign(passing.size(), 7);
  EXPECT_EQ(comparison_.rows_of(weight.get(), std::vector<std::int32_t>{0}), nullptr);
  const SampledWeight sample = comparison_.sample(weight.get());
  float sum = 0;
  std::vector<float> ones(static_cast<std::size_t>(k_), 1), out(sample.outputs.size());
  make_reference_backend()->run(MatMul{Tensor(out.data(), DType::kF32, {1, std::ssize(out)}),
                                       Tensor(ones.data(), DType::kF32, {1, k_}), sample.weight.get(),
                                       KSlices::whole(k_)});
  for (const float value : out) sum += value;
  EXPECT_EQ(sum, static_cast<float>(k_ * std::ssize(out))) << "not of what came later";
}

}  // namespace
}  // namespace tandem
