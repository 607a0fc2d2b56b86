// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "checkpoint/checkpoint.h"

#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "checkpoint/safetensors_writer.h"
#include "tests/base/error_of.h"
#include "tests/checkpoint/retyped_gguf.h"
#include "tests/checkpoint/sha256.h"
#include "tests/checkpoint/temporary_folder.h"

namespace tandem {
namespace {

using ::testing::HasSubstr;

const std::string kGoldens = "tests/goldens/";

Json read_json(const std::string& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return parse_json(text.str(), path);
}

Error refused(const std::string& path) {
  return error_of([&] { Checkpoint::open(path); });
}

void write_tensor(const std::string& path, const std::string& name) {
  static const float value = 1;
  const SafetensorsTensor tensor{name, DType::kF32, {1}, std::as_bytes(std::span(&value, 1))};
  write_safetensors(path, std::span(&tensor, 1));
}

TEST(Sha256, is_the_published_function) {
  EXPECT_EQ(sha256_hex({}), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  const std::string text = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
  EXPECT_EQ(sha256_hex(std::as_bytes(std::span(text))),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

class GgufGolden : public ::testing::TestWithParam<const char*> {};

TEST_P(GgufGolden, dequantised_tensors_have_the_recorded_digests) {
  const std::string type = GetParam();
  const auto checkpoint = Checkpoint::open(kGoldens + "llama_gguf/llama-" + type + ".gguf");
  const Json recorded = read_json(kGoldens + "llama_gguf/expected.json")["files"][type]["tensors"];
  EXPECT_EQ(checkpoint->format(), CheckpointFormat::kGguf);
  EXPECT_EQ(checkpoint->tensors().size(), recorded.size());
  for (const auto& [name, expected] : recorded.items()) {
    SCOPED_TRACE(name);
    const TensorInfo* info = checkpoint->find(name);
    ASSERT_NE(info, nullptr);
    EXPECT_EQ(info->type_name, expected["type"].get<std::string>());
    ASSERT_EQ(static_cast<std::size_t>(info->shape.rank), expected["shape"].size());
    for (int axis = 0; axis < info->shape.rank; ++axis) EXPECT_EQ(info->shape[axis], expected["shape"][axis]);
    ASSERT_TRUE(info->dtype);
    std::vector<float> values(static_cast<std::size_t>(info->shape.elements()));
    dequantise(*info->dtype, checkpoint->data(*info).data(), values.size(), values.data());
    checkpoint->release(*info, 0, info->bytes);
    EXPECT_EQ(sha256_hex(std::as_bytes(std::span(values))), expected["sha256_f32"].get<std::string>());
  }
}

INSTANTIATE_TEST_SUITE_P(Types, GgufGolden, ::testing::Values("f16", "q8_0", "q4_0", "q4_1", "q4_k_m"));

TEST(Checkpoint, unsupported_types_are_named_together_when_used) {
  const TemporaryFolder folder;
  const auto checkpoint = Checkpoint::open(retyped_gguf(folder, kGoldens + "llama_gguf/llama-q4_0.gguf"));
  const TensorInfo* first = nullptr;
  for (const TensorInfo& info : checkpoint->tensors())
    if (!info.dtype && !first) first = &info;
  ASSERT_NE(first, nullptr);
  const Error error = error_of([&] { checkpoint->data(*first); });
  EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
  EXPECT_THAT(error.message(), HasSubstr("IQ4_NL: "));
  for (const TensorInfo& info : checkpoint->tensors()) {
    if (info.dtype) {
      EXPECT_NO_THROW(checkpoint->data(info));
    } else {
      EXPECT_THAT(error.message(), HasSubstr(info.name));
    }
  }
}

TEST(Checkpoint, gguf_metadata_are_the_configuration) {
  const auto checkpoint = Checkpoint::open(kGoldens + "llama_gguf/llama-q8_0.gguf");
  EXPECT_EQ(checkpoint->config()["general.architecture"], "llama");
  EXPECT_GT(checkpoint->config()["llama.block_count"], 0);
  for (const auto& [key, array] : checkpoint->arrays()) EXPECT_EQ(checkpoint->array_size(key), array.count);
  EXPECT_EQ(error_of([&] { checkpoint->string_array("no.such.key"); }).code(), ErrorCode::kNotFound);
  EXPECT_TRUE(checkpoint->side_file("tokenizer.json"));
}

TEST(Checkpoint, opens_a_folder_with_one_file) {
  const auto checkpoint = Checkpoint::open(kGoldens + "llama");
  EXPECT_EQ(checkpoint->format(), CheckpointFormat::kSafetensors);
  EXPECT_EQ(checkpoint->config()["model_type"], "llama");
  const TensorInfo* head = checkpoint->find("lm_head.weight");
  ASSERT_NE(head, nullptr);
  EXPECT_EQ(head->dtype, DType::kBF16);
  EXPECT_EQ(head->shape, (Shape{512, 128}));
  EXPECT_EQ(checkpoint->data(*head).size(), 512u * 128 * 2);
  EXPECT_EQ(checkpoint->find("no.such.tensor"), nullptr);
  EXPECT_THAT(checkpoint->side_file("tokenizer.json").value_or(""), HasSubstr("\"model\""));
  EXPECT_FALSE(checkpoint->side_file("no_such_file.json"));
  EXPECT_EQ(Checkpoint::open(kGoldens + "step3_text_d256")->config()["model_type"],
            read_json(kGoldens + "step3_text_d256/config.json")["model_type"]);
}

TEST(Checkpoint, opens_shards_by_their_index) {
  const auto checkpoint = Checkpoint::open(kGoldens + "step3_text_bf16");
  const Json index = read_json(kGoldens + "step3_text_bf16/model.safetensors.index.json");
  EXPECT_EQ(checkpoint->tensors().size(), index["weight_map"].size());
  EXPECT_EQ(checkpoint->tensor_bytes(), index["metadata"]["total_size"]);
  for (const auto& [tensor, shard] : index["weight_map"].items()) {
    const TensorInfo* info = checkpoint->find(tensor);
    ASSERT_NE(info, nullptr) << tensor;
    EXPECT_TRUE(checkpoint->file(*info).path().ends_with(shard.get<std::string>())) << tensor;
  }
}

TEST(Checkpoint, threads_may_read_and_release_together) {
  const auto checkpoint = Checkpoint::open(kGoldens + "step3_text_bf16");
  const auto sum = [&] {
    std::uint64_t total = 0;
    for (const TensorInfo& info : checkpoint->tensors()) {
      for (const std::byte b : checkpoint->data(info)) total += static_cast<std::uint64_t>(b);
      checkpoint->release(info, 0, info.bytes);
    }
    return total;
  };
  const std::uint64_t expected = sum();
  std::uint64_t sums[2] = {};
  {
    std::jthread first([&] { sums[0] = sum(); }), second([&] { sums[1] = sum(); });
  }
  EXPECT_EQ(sums[0], expected);
  EXPECT_EQ(sums[1], expected);
}

TEST(Checkpoint, a_folder_may_hold_one_gguf_file) {
  const TemporaryFolder folder;
  std::filesystem::copy_file(kGoldens + "llama_gguf/llama-q4_0.gguf", folder.path("some.gguf"));
  EXPECT_EQ(Checkpoint::open(folder.path())->format(), CheckpointFormat::kGguf);
  const Error several = refused(kGoldens + "llama_gguf");
  EXPECT_EQ(several.code(), ErrorCode::kInvalidArgument);
  EXPECT_THAT(several.message(), HasSubstr("llama-f16.gguf, llama-q4_0.gguf"));
}

TEST(Checkpoint, says_what_is_no_checkpoint) {
  const TemporaryFolder folder;
  EXPECT_EQ(refused(folder.path("missing")).code(), ErrorCode::kNotFound);
  EXPECT_EQ(refused(folder.path()).code(), ErrorCode::kNotFound);
  EXPECT_THAT(refused(folder.path()).message(), HasSubstr("neither model.safetensors nor"));
  EXPECT_THAT(refused(folder.write("a.gguf", "not a model")).message(), HasSubstr("does not begin with GGUF"));
  EXPECT_THAT(refused(folder.write("empty.gguf", "")).message(), HasSubstr("file is empty"));
  write_tensor(folder.path("model.safetensors"), "a");
  EXPECT_THAT(refused(folder.path("model.safetensors")).message(), HasSubstr("give the folder"));
}

TEST(Checkpoint, a_description_needs_no_weights) {
  const TemporaryFolder folder;
  const std::string file = folder.write("config.json", R"({"model_type": "llama"})");
  for (const std::string& path : {folder.path(), file}) {
    const auto description = Checkpoint::open_description(path);
    EXPECT_FALSE(description->has_weights());
    EXPECT_EQ(description->config()["model_type"], "llama");
    EXPECT_EQ(description->path(), path);
  }
  EXPECT_EQ(error_of([&] { Checkpoint::open(folder.path()); }).code(), ErrorCode::kNotFound);
  EXPECT_TRUE(Checkpoint::open_description("tests/goldens/llama")->has_weights());
  EXPECT_TRUE(Checkpoint::open_description("tests/goldens/llama_gguf/llama-f16.gguf")->has_weights());
  const TemporaryFolder nothing;
  EXPECT_EQ(error_of([&] { Checkpoint::open_description(nothing.path()); }).code(), ErrorCode::kNotFound);
}

TEST(Checkpoint, says_what_is_wrong_with_the_configuration) {
  const TemporaryFolder folder;
  write_tensor(folder.path("model.safetensors"), "a");
  EXPECT_EQ(refused(folder.path()).code(), ErrorCode::kNotFound);
  EXPECT_THAT(refused(folder.path()).message(), HasSubstr("config.json"));
  folder.write("config.json", "[]");
  EXPECT_THAT(refused(folder.path()).message(), HasSubstr("not a JSON object"));
  folder.write("config.json", R"({"a":1,"a":2})");
  EXPECT_THAT(refused(folder.path()).message(), HasSubstr("appears twice"));
  folder.write("config.json", "{}");
  EXPECT_EQ(Checkpoint::open(folder.path())->tensors().size(), 1u);
}

TEST(Checkpoint, folders_where_files_should_be_are_refused) {
  const TemporaryFolder folder;
  folder.write("config.json", "{}");
  std::filesystem::create_directory(folder.path("model.safetensors"));
  EXPECT_THAT(refused(folder.path()).message(), HasSubstr("is a directory"));
}

TEST(Checkpoint, says_when_rights_are_missing) {
  if (geteuid() == 0) GTEST_SKIP() << "root may read everything";
  const TemporaryFolder folder;
  folder.write("config.json", "{}");
  write_tensor(folder.path("model.safetensors"), "a");
  ASSERT_EQ(chmod(folder.path("model.safetensors").c_str(), 0), 0);
  EXPECT_EQ(refused(folder.path()).code(), ErrorCode::kPermissionDenied);
}

struct BadIndex {
  const char* json;
  ErrorCode code;
  const char* message;
};

const BadIndex kBadIndexes[] = {
    {R"({})", ErrorCode::kInvalidData, "no object 'weight_map'"},
    {R"({"weight_map":[]})", ErrorCode::kInvalidData, "no object 'weight_map'"},
    {R"({"weight_map":{}})", ErrorCode::kInvalidData, "is empty"},
    {R"({"weight_map":{"a":1}})", ErrorCode::kInvalidData, "is not a string"},
    {R"({"weight_map":{"a":"../x.safetensors"}})", ErrorCode::kInvalidData, "not a plain file name"},
    {R"({"weight_map":{"a":"/etc/passwd"}})", ErrorCode::kInvalidData, "not a plain file name"},
    {R"({"weight_map":{"a":".."}})", ErrorCode::kInvalidData, "not a plain file name"},
    {R"({"weight_map":{"a":""}})", ErrorCode::kInvalidData, "not a plain file name"},
    {R"({"weight_map":{"a":"one.safetensors\u0000x"}})", ErrorCode::kInvalidData, "not a plain file name"},
    {R"({"weight_map":{"a":"one.safetensors","a":"two.safetensors"}})", ErrorCode::kInvalidData, "appears twice"},
    {R"({"weight_map":{"a":"one.safetensors","b":"three.safetensors","c":"four.safetensors"}})", ErrorCode::kNotFound,
     "missing shards: four.safetensors, three.safetensors"},
    {R"({"weight_map":{"a":"one.safetensors","c":"two.safetensors"}})", ErrorCode::kInvalidData,
     "'c' is not in two.safetensors"},
    {R"({"weight_map":{"a":"two.safetensors","b":"one.safetensors"}})", ErrorCode::kInvalidData,
     "'a' is not in two.safetensors"},
    {R"({"weight_map":{"a":"one.safetensors","b":"same.safetensors"}})", ErrorCode::kInvalidData, "'a' is both in"},
};

TEST(Checkpoint, a_bad_index_is_refused_with_a_reason) {
  const TemporaryFolder folder;
  folder.write("config.json", "{}");
  write_tensor(folder.path("one.safetensors"), "a");
  write_tensor(folder.path("two.safetensors"), "b");
  write_tensor(folder.path("same.safetensors"), "a");
  for (const BadIndex& c : kBadIndexes) {
    SCOPED_TRACE(c.json);
    folder.write("model.safetensors.index.json", c.json);
    const Error error = refused(folder.path());
    EXPECT_EQ(error.code(), c.code);
    EXPECT_THAT(error.message(), HasSubstr(c.message));
  }
  folder.write("model.safetensors.index.json", R"({"weight_map":{"a":"one.safetensors","b":"two.safetensors"}})");
  EXPECT_EQ(Checkpoint::open(folder.path())->tensors().size(), 2u);
}

TEST(CheckpointDeath, side_files_stay_in_the_folder) {
  const auto checkpoint = Checkpoint::open(kGoldens + "llama");
  EXPECT_DEATH(checkpoint->side_file("../README.md"), "plain name");
}

}  // namespace
}  // namespace tandem
