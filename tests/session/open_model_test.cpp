// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "session/open_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "base/error.h"

namespace tandem {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

Json golden_json(const std::string& path) {
  std::ifstream file("tests/goldens/" + path);
  return parse_json(std::string(std::istreambuf_iterator<char>(file), {}), path);
}

TEST(OpenModel, AFolderBringsItsTokenizerTemplateAndStopIds) {
  const OpenModel model = open_model("tests/goldens/llama");
  EXPECT_EQ(model.tokenizer.vocab_size(), 512u);
  EXPECT_TRUE(model.chat_template.has_value());
  EXPECT_THAT(model.stop_ids, ElementsAre(510));  // <|eot_id|>
}

// The two carry the same vocabulary, one as arrays in the file, the other as tokenizer.json.
TEST(OpenModel, AGgufBringsTheSameTokensAsAFolder) {
  const OpenModel gguf = open_model("tests/goldens/llama_gguf/llama-q8_0.gguf");
  const OpenModel folder = open_model("tests/goldens/llama");
  for (const char* text : {"Each contributor grants you a patent license.", "  Zürich\n\n123 <|eot_id|>", ""}) {
    EXPECT_EQ(gguf.tokenizer.encode(text), folder.tokenizer.encode(text)) << text;
    EXPECT_EQ(gguf.text_prompt(text), folder.text_prompt(text)) << text;
  }
  EXPECT_EQ(gguf.stop_ids, folder.stop_ids);
}

TEST(OpenModel, ChatPromptsAreThoseOfTheTemplate) {
  const OpenModel model = open_model("tests/goldens/llama");
  int compared = 0;
  const Json golden = golden_json("text/chat_templates.json");
  for (const Json& c : golden["cases"]) {
    if (c["template"].get<std::string>() != "llama3" || !c.contains("expected_ids") || !c["tools"].is_null() ||
        !c["add_generation_prompt"].get<bool>() || !c["variables"].empty())
      continue;
    if (c["case"].get<std::string>() == "special_text") continue;  // what messages spell stays text here, on purpose
    EXPECT_EQ(model.chat_prompt(OrderedJson::parse(c["messages"].dump())),
              model.tokenizer.encode(c["expected"].get<std::string>(), {.parse_special = true}))
        << c["case"];
    ++compared;
  }
  EXPECT_GT(compared, 2);
}

class OpenModelErrors : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::path(testing::TempDir()) / "tandem_open_model";
    std::filesystem::remove_all(folder_);
    std::filesystem::copy("tests/goldens/llama", folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string message() const {
    try {
      open_model(folder_).chat_prompt(OrderedJson::parse(R"([{"role": "user", "content": "a"}])"));
    } catch (const Error& error) {
      return error.message();
    }
    return {};
  }

  std::filesystem::path folder_;
};

TEST_F(OpenModelErrors, NamesTheTokenizerThatIsMissing) {
  std::filesystem::remove(folder_ / "tokenizer.json");
  EXPECT_THAT(message(), HasSubstr("tokenizer.json"));
}

TEST_F(OpenModelErrors, WithoutATemplateThereIsNoConversation) {
  std::filesystem::remove(folder_ / "tokenizer_config.json");
  EXPECT_THAT(message(), HasSubstr("no chat template"));
}

TEST_F(OpenModelErrors, ATemplateMayBeAFileOfItsOwn) {
  std::filesystem::remove(folder_ / "tokenizer_config.json");
  std::ofstream(folder_ / "chat_template.jinja") << "{% for m in messages %}{{ m.content }}{% endfor %}";
  EXPECT_EQ(open_model(folder_).chat_prompt(OrderedJson::parse(R"([{"role": "user", "content": "The work"}])")),
            open_model(folder_).tokenizer.encode("The work"));
}

TEST_F(OpenModelErrors, GenerationConfigAddsStopIds) {
  std::ofstream(folder_ / "generation_config.json") << R"({"eos_token_id": [505, 509, -3, "x"]})";
  EXPECT_THAT(open_model(folder_).stop_ids, ElementsAre(505, 509, 510));
}

TEST_F(OpenModelErrors, BadTokenizersAndTemplatesAreErrors) {
  std::ofstream(folder_ / "tokenizer_config.json") << R"({"chat_template": "{% for %}"})";
  EXPECT_NE(message(), "");
  std::ofstream(folder_ / "tokenizer.json") << "{}";
  EXPECT_NE(message(), "");
}

}  // namespace
}  // namespace tandem
