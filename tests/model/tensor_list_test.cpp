// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "model/tensor_list.h"

#include <gtest/gtest.h>

#include <string>

namespace tandem {
namespace {

// What is listed from a configuration alone is what a checkpoint made elsewhere has, to the name, shape and type.
TEST(TensorList, IsWhatRecordedCheckpointsHave) {
  for (const char* golden : {"deepseek_v3", "llama", "qwen3", "qwen3_moe", "step3_text_bf16", "step3_text_d256",
                             "step3_text_fp8", "step3_vl", "step3p5"}) {
    SCOPED_TRACE(golden);
    const auto checkpoint = Checkpoint::open(std::string("tests/goldens/") + golden);
    const std::vector<ListedTensor> listed = list_tensors(*Checkpoint::describe(checkpoint->config(), golden));
    EXPECT_EQ(listed.size(), checkpoint->tensors().size());
    for (const ListedTensor& tensor : listed) {
      const TensorInfo* info = checkpoint->find(tensor.name);
      ASSERT_NE(info, nullptr) << tensor.name;
      EXPECT_EQ(tensor.shape, info->shape) << tensor.name;
      EXPECT_EQ(name(tensor.dtype), name(*info->dtype)) << tensor.name;
    }
  }
}

TEST(TensorList, ScalesStandBehindTheirWeights) {
  const auto checkpoint = Checkpoint::open("tests/goldens/step3_text_fp8");
  const std::vector<ListedTensor> listed = list_tensors(*Checkpoint::describe(checkpoint->config(), "fp8"));
  int scales = 0;
  for (std::size_t i = 0; i < listed.size(); ++i) {
    if (!WeightReader::is_scale(listed[i].name)) continue;
    ASSERT_GT(i, 0u);
    EXPECT_EQ(listed[i].name, listed[i - 1].name + "_scale_inv");
    ++scales;
  }
  EXPECT_GT(scales, 0);
}

}  // namespace
}  // namespace tandem
