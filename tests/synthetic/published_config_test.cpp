// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "synthetic/published_config.h"

#include <gmock/gmock.h>

#include <string>

#include "checkpoint/checkpoint.h"
#include "model/tensor_list.h"
#include "tests/base/error_of.h"
#include "tests/checkpoint/temporary_folder.h"

namespace tandem {
namespace {

using testing::HasSubstr;

std::int64_t parameters_of(const std::string& name) {
  std::int64_t parameters = 0;
  for (const ListedTensor& tensor : list_tensors(*Checkpoint::describe(Json(find_config(name)), name)))
    if (!WeightReader::is_scale(tensor.name)) parameters += tensor.shape.elements();
  return parameters;
}

// As the models' reports have them.
TEST(PublishedConfig, HasTheParametersOfThePublishedModel) {
  EXPECT_EQ(parameters_of("step3_vl"), 320'969'912'832);
  EXPECT_EQ(parameters_of("step3"), 316'294'538'240);
  EXPECT_EQ(parameters_of("step3_fp8"), 316'294'538'240);
  EXPECT_EQ(parameters_of("deepseek_v3"), 671'026'419'200);
  EXPECT_EQ(parameters_of("qwen3_moe"), 30'532'122'624);
  EXPECT_EQ(parameters_of("qwen3"), 32'762'123'264);
  EXPECT_EQ(parameters_of("llama"), 8'030'261'248);
}

TEST(PublishedConfig, StandsInFilesToo) {
  const TemporaryFolder folder;
  folder.write("config.json", R"({"model_type": "llama", "zeta": 1, "alpha": 2})");
  for (const std::string& path : {folder.path(), folder.path("config.json")})
    EXPECT_EQ(find_config(path).dump(), R"({"model_type":"llama","zeta":1,"alpha":2})") << "in the order of the file";
}

TEST(PublishedConfig, SaysWhichNamesThereAre) {
  EXPECT_THAT(error_of([] { find_config("gpt2"); }).message(), HasSubstr("take one of step3, step3_fp8, step3_vl"));
  EXPECT_EQ(error_of([] { find_config("/no/such/config.json"); }).code(), ErrorCode::kNotFound);
  const TemporaryFolder folder;
  EXPECT_EQ(error_of([&] { find_config(folder.write("a.json", "[]")); }).code(), ErrorCode::kInvalidData);
}

}  // namespace
}  // namespace tandem
