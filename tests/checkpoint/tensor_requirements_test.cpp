// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "checkpoint/tensor_requirements.h"

#include <gmock/gmock.h>

#include <string>
#include <vector>

#include "base/format.h"
#include "tests/base/error_of.h"

namespace tandem {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

TensorInfo tensor(std::string name, Shape shape, std::optional<DType> dtype, std::string type_name = "") {
  return {.name = std::move(name), .dtype = dtype, .type_name = std::move(type_name), .shape = shape};
}

RequiredTensor bf16(std::string name, Shape shape) {
  return {std::move(name), shape, {DType::kBF16, DType::kF16}};
}

TEST(TensorRequirements, a_fitting_checkpoint_passes) {
  const TensorRequirements need{.required = {bf16("a", {2}), bf16("b", {3, 4})}, .ignored = {"*.inv_freq"}};
  const std::vector<TensorInfo> have{tensor("b", {3, 4}, DType::kF16), tensor("a", {2}, DType::kBF16),
                                     tensor("layers.0.inv_freq", {8}, std::nullopt, "F64")};
  EXPECT_NO_THROW(check_tensors(need, have, "model"));
}

TEST(TensorRequirements, all_faults_are_reported_together) {
  const TensorRequirements need{
      .required = {bf16("gone", {1}), bf16("long", {2}), bf16("wide", {2}), bf16("exotic", {4})}, .ignored = {}};
  const std::vector<TensorInfo> have{tensor("long", {3}, DType::kBF16), tensor("wide", {2}, DType::kF32),
                                     tensor("exotic", {4}, std::nullopt, "Q4_K"), tensor("extra", {1}, DType::kBF16)};
  const Error error = error_of([&] { check_tensors(need, have, "some/model"); });
  EXPECT_EQ(error.code(), ErrorCode::kInvalidData);
  EXPECT_THAT(error.message(),
              AllOf(HasSubstr("some/model"), HasSubstr("missing (1): gone"), HasSubstr("unexpected (1): extra"),
                    HasSubstr("wrong shape (1): long is [3], expected [2]"),
                    HasSubstr("wrong type (1): wide is f32, expected bf16 or f16"),
                    HasSubstr("unsupported type (1): Q4_K exotic")));
}

TEST(TensorRequirements, unsupported_types_alone_are_unsupported) {
  const TensorRequirements need{.required = {bf16("a", {256})}, .ignored = {}};
  const std::vector<TensorInfo> have{tensor("a", {256}, std::nullopt, "Q6_K")};
  EXPECT_EQ(error_of([&] { check_tensors(need, have, "model"); }).code(), ErrorCode::kUnsupported);
}

TEST(TensorRequirements, long_lists_are_cut_and_counted) {
  TensorRequirements need;
  for (int i = 0; i < 25; ++i) need.required.push_back(bf16(format("layer{:02}", i), {1}));
  const Error error = error_of([&] { check_tensors(need, {}, "model"); });
  EXPECT_THAT(error.message(),
              AllOf(HasSubstr("missing (25): layer00"), HasSubstr("layer19 and 5 more"), Not(HasSubstr("layer20"))));
}

TEST(Matches, stars_stand_for_any_run) {
  EXPECT_TRUE(matches("a.b", "a.b"));
  EXPECT_FALSE(matches("a.b", "a.bc"));
  EXPECT_FALSE(matches("a.b", "axb"));
  EXPECT_TRUE(matches("*", ""));
  EXPECT_TRUE(matches("model.layers.*.bias", "model.layers.12.mlp.bias"));
  EXPECT_FALSE(matches("model.layers.*.bias", "model.layers.bias"));
  EXPECT_TRUE(matches("*a*b*", "xaaxbb"));
  EXPECT_FALSE(matches("*a*b", "xba"));
  EXPECT_FALSE(matches("", "x"));
  EXPECT_FALSE(matches("a*a", "a"));
}

}  // namespace
}  // namespace tandem
