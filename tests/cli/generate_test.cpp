// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <sstream>

#include "base/format.h"
#include "base/json.h"
#include "cli/sampling_options.h"
#include "tests/cli/program.h"
#include "verify/expectations.h"

namespace tandem {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<Json> lines_of(const ProgramResult& result) {
  std::vector<Json> lines;
  std::istringstream text(result.out);
  for (std::string line; std::getline(text, line);) lines.push_back(parse_json(line, "output"));
  return lines;
}

std::vector<std::int32_t> ids_of(const Json& line) {
  return line.at("token_ids").get<std::vector<std::int32_t>>();
}

ProgramResult generate(std::vector<std::string> arguments, const std::string& input = "") {
  arguments.insert(arguments.begin(), {"generate", "--context-tokens-max", "256", "--sequences-max", "4"});
  return run_program(arguments, input);
}

struct TextPrompt {
  std::string name, text;
};

// The recorded prompts that were texts.
std::vector<TextPrompt> text_prompts(const std::string& model) {
  const std::string path = model + "/expected.json";
  std::ifstream file(path);
  std::vector<TextPrompt> prompts;
  const Json recorded = parse_json(std::string(std::istreambuf_iterator<char>(file), {}), path);
  for (const Json& prompt : recorded.at("prompts"))
    if (prompt.at("text").is_string()) prompts.push_back({prompt.at("name"), prompt.at("text")});
  return prompts;
}

TEST(Generate, AnswersAreTheRecordedTokens) {
  const std::string model = "tests/goldens/llama";
  const std::vector<TextPrompt> prompts = text_prompts(model);
  ASSERT_FALSE(prompts.empty());
  const Expectations expectations = read_expectations(model);
  for (const TextPrompt& prompt : prompts) {
    const auto expected = std::ranges::find(expectations.prompts, prompt.name, &ExpectedPrompt::name);
    const ProgramResult result =
        generate({"--model", model, "--kv-dtype", "f32", "--token-ids", "--max-tokens", "24", prompt.text});
    ASSERT_EQ(result.status, 0) << result.err;
    const std::vector<Json> lines = lines_of(result);
    ASSERT_EQ(lines.size(), 1u);
    EXPECT_EQ(ids_of(lines[0]), expected->greedy_ids);
    EXPECT_EQ(lines[0]["usage"]["prompt_tokens"], expected->ids.size());
  }
}

struct LinesCase {
  std::string model, layout;
};

class GenerateLines : public testing::TestWithParam<LinesCase> {};

// Every recorded prompt as a line of tokens, all at once.
TEST_P(GenerateLines, AreAnsweredTogetherAndInOrder) {
  const std::string model = "tests/goldens/" + GetParam().model;
  const Expectations expectations = read_expectations(model);
  std::string input;
  for (int round = 0; round < 3; ++round)
    for (const ExpectedPrompt& prompt : expectations.prompts)
      input += to_line(Json{{"id", prompt.name}, {"prompt_ids", prompt.ids}}) + "\n";
  const ProgramResult result = generate(
      {"--model", model, "--kv-dtype", "f32", "--token-ids", "-n", "24", "--layout", GetParam().layout, "--jsonl", "-"},
      input);
  ASSERT_EQ(result.status, 0) << result.err;
  EXPECT_THAT(result.err, HasSubstr(format("layout    {}", GetParam().layout)));
  const std::vector<Json> lines = lines_of(result);
  ASSERT_EQ(lines.size(), 3 * expectations.prompts.size());
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const ExpectedPrompt& prompt = expectations.prompts[i % expectations.prompts.size()];
    EXPECT_EQ(lines[i]["id"], prompt.name);
    EXPECT_EQ(ids_of(lines[i]), prompt.greedy_ids) << prompt.name;
  }
}

INSTANTIATE_TEST_SUITE_P(All, GenerateLines,
                         testing::Values(LinesCase{"llama", "local"}, LinesCase{"llama", "1A1F"},
                                         LinesCase{"step3_text_bf16", "2A2F"}, LinesCase{"step3_text_bf16", "2A2x2F"},
                                         LinesCase{"llama_gguf/llama-q4_1.gguf", "1A2F"}),
                         [](const auto& info) { return format("{}_{}", info.index, info.param.layout); });

TEST(Generate, GpusAreRefusedWhereThereAreNoneToTake) {
  const auto error = [](std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), {"--model", "tests/goldens/llama", "--max-tokens", "1", "a"});
    const ProgramResult result = generate(std::move(arguments));
    EXPECT_NE(result.status, 0);
    return result.err;
  };
  EXPECT_THAT(error({"--gpu-f", "1"}), HasSubstr("--gpu-f 1: device cpu runs on no GPU (--device)"));
  EXPECT_THAT(error({"--device", "cuda", "--layout", "1A1F", "--gpu-a", "0,1"}),
              HasSubstr("--gpu-a 0,1: layout 1A1F has 1 attention workers, GPUs are given for 2 (--layout)"));
  EXPECT_THAT(error({"--gpu-a", "-1"}), HasSubstr("--gpu-a"));
  EXPECT_THAT(error({"--gpu-f", "0", "--gpu-f", "1"}), HasSubstr("--gpu-f 0,1"));
}

TEST(Generate, ABadLineDisturbsNoOther) {
  const std::string input =
      "{\"id\": 1, \"prompt\": \"The work\", \"max_tokens\": 4}\n"
      "\n"
      "{\"id\": 2, \"prompt\": \"The work\", \"max_tokens\": -4}\n"
      "no json\n"
      "{\"id\": [4], \"prompt\": \"The work\", \"temperature\": -1}\n"
      "{\"id\": 5, \"prompt_ids\": [100000]}\n"
      "{\"id\": 6, \"prompt\": \"The work\", \"max_tokens\": 4}";
  const ProgramResult result = generate({"--model", "tests/goldens/llama", "--jsonl", "-"}, input);
  EXPECT_EQ(result.status, 1);
  EXPECT_THAT(result.err, HasSubstr("4 of 6 requests failed"));
  const std::vector<Json> lines = lines_of(result);
  ASSERT_EQ(lines.size(), 6u);
  EXPECT_EQ(lines[0]["id"], 1);
  EXPECT_EQ(lines[0]["finish_reason"], "length");
  EXPECT_EQ(lines[0]["usage"]["completion_tokens"], 4);
  EXPECT_EQ(lines[5]["text"], lines[0]["text"]);
  const auto message = [&](int i) {
    return lines[static_cast<std::size_t>(i)].at("error").at("message").get<std::string>();
  };
  EXPECT_THAT(message(1), HasSubstr("\"max_tokens\""));
  EXPECT_THAT(message(2), HasSubstr("line 4"));
  EXPECT_THAT(message(3), HasSubstr("temperature is -1"));
  EXPECT_EQ(lines[3]["id"], Json::array({4}));
  EXPECT_THAT(message(4), HasSubstr("100000"));
}

TEST(Generate, SamplingDependsOnTheSeedAlone) {
  const auto text = [](const char* seed, const char* layout) {
    return generate({"--model", "tests/goldens/llama", "--text", "--temperature", "1.5", "--top-k", "50", "--seed",
                     seed, "--layout", layout, "-n", "16", "The work"})
        .out;
  };
  EXPECT_EQ(text("1", "local"), text("1", "1A2F"));
  EXPECT_NE(text("1", "local"), text("2", "local"));
}

TEST(Generate, LogprobsAndStopStringsAndBias) {
  const ProgramResult result = generate({"--model", "tests/goldens/llama", "--logprobs", "2", "-n", "3", "The work"});
  const Json line = lines_of(result).at(0);
  ASSERT_EQ(line.at("logprobs").size(), 3u);
  for (const Json& token : line["logprobs"]) {
    EXPECT_EQ(token.at("top").size(), 2u);
    EXPECT_EQ(token["top"][0]["id"], token["id"]);  // greedy: the likeliest
    EXPECT_GE(token["top"][0]["logprob"], token["top"][1]["logprob"]);
    EXPECT_LT(token["logprob"], 0);
  }
  // Token 33 is forced, and its text is the stop string.
  const std::string forced =
      lines_of(generate({"--model", "tests/goldens/llama", "--logit-bias", "33:10000", "-n", "1", "a"})).at(0)["text"];
  const Json stopped =
      lines_of(generate({"--model", "tests/goldens/llama", "--logit-bias", "33:10000", "--stop", forced, "a"})).at(0);
  EXPECT_EQ(stopped["text"], "");
  EXPECT_EQ(stopped["finish_reason"], "stop");
}

TEST(Generate, PromptsComeFromFilesAndConversations) {
  const std::string model = "tests/goldens/llama_gguf/llama-q8_0.gguf";
  const auto line = [&](std::vector<std::string> more, const std::string& input = "") {
    more.insert(more.begin(), {"--model", model, "-n", "4"});
    return lines_of(generate(more, input)).at(0);
  };
  const Json plain = line({"The work"});
  EXPECT_EQ(line({"--file", "-"}, "The work"), plain);
  const Json chat = line({"--chat", "The work"});
  EXPECT_GT(chat["usage"]["prompt_tokens"], plain["usage"]["prompt_tokens"]);
  EXPECT_EQ(line({"--jsonl", "-"}, R"({"messages": [{"role": "user", "content": "The work"}]})"), chat);
  EXPECT_GT(line({"--system", "Be kind.", "The work"})["usage"]["prompt_tokens"], chat["usage"]["prompt_tokens"]);
}

TEST(Generate, PicturesComeBeforeThePrompt) {
  const std::string model = "tests/goldens/step3_vl", png = "tests/goldens/pictures/rgb.png",
                    jpeg = "tests/goldens/pictures/smooth.jpg";
  const auto run = [&](std::vector<std::string> more, const std::string& input = "") {
    std::vector<std::string> arguments{"generate", "--model", model,         "--context-tokens-max", "512", "-n",
                                       "4",        "--quiet", "--token-ids", "--temperature",        "0"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run_program(arguments, input);
  };
  const ProgramResult by_flag = run({"--image", png, "--image", jpeg, "What?"});
  ASSERT_EQ(by_flag.status, 0) << by_flag.err;
  const Json part{{"type", "text"}, {"text", "What?"}};
  const auto request = [&](const Json& first, const Json& second) {
    return Json{{"messages", {{{"role", "user"}, {"content", {first, second, part}}}}}}.dump() + "\n";
  };
  const Json a{{"type", "image"}, {"path", png}}, b{{"type", "image"}, {"path", jpeg}};
  const std::vector<Json> by_line = lines_of(run({"--jsonl", "-"}, request(a, b) + request(b, a)));
  ASSERT_EQ(by_line.size(), 2u);
  EXPECT_EQ(ids_of(by_line[0]), ids_of(lines_of(by_flag)[0]));
  const ProgramResult bad = run({"--image", "tests/goldens/pictures/cmyk.jpg", "What?"});
  EXPECT_EQ(bad.status, 1);
  EXPECT_THAT(bad.out + bad.err, HasSubstr("cmyk.jpg: picture: it is in CMYK"));
}

TEST(Generate, UnorderedWritesTheSameAnswers) {
  std::string input;
  for (int i = 0; i < 12; ++i)
    input += format("{{\"id\": {}, \"prompt\": \"The work\", \"max_tokens\": {}}}\n", i, 40 - 3 * i);
  const std::vector<Json> lines =
      lines_of(generate({"--model", "tests/goldens/llama", "--unordered", "--jsonl", "-"}, input));
  std::set<int> ids;
  for (const Json& line : lines) {
    ids.insert(line["id"].get<int>());
    EXPECT_EQ(line["usage"]["completion_tokens"], 40 - 3 * line["id"].get<int>());
  }
  EXPECT_EQ(ids.size(), 12u);
}

TEST(Generate, AnswersHaveAForm) {
  const std::vector<std::string> usual{"--model", "tests/goldens/llama", "-n", "40", "--quiet"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), usual.begin(), usual.end());
    return more;
  };
  const ProgramResult number = generate(with({"--regex", "[1-9]{2,4}x", "--text", "The work"}));
  EXPECT_EQ(number.status, 0) << number.err;
  EXPECT_THAT(number.out, testing::MatchesRegex("[1-9][1-9][1-9]?[1-9]?x\n?"));
  const std::vector<Json> lines = lines_of(generate(
      with({"--choice", "yes", "--choice", "no", "--jsonl", "-"}),
      "{\"prompt\": \"a\"}\n{\"prompt\": \"b\", \"choice\": [\"left\"]}\n{\"prompt\": \"c\", \"regex\": \"(\"}\n"));
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_THAT(lines[0]["text"].get<std::string>(), testing::AnyOf("yes", "no"));
  EXPECT_EQ(lines[1]["text"], "left") << "a line's own form goes first";
  EXPECT_THAT(lines[2].dump(), HasSubstr("grammar: "));
  EXPECT_EQ(generate(with({"--regex", "a", "--choice", "b", "--text", "c"})).status, 2);
}

TEST(Generate, ComparesTheModelWithTheReferenceWhenAsked) {
  const std::vector<std::string> words{"generate", "--model", "tests/goldens/step3_text_fp8", "--selfcheck", "-q"};
  const ProgramResult alone = run_program(words);
  EXPECT_EQ(alone.status, 0) << alone.err;
  for (const char* part : {"experts ", "attention ", "choice of experts", "self-check passed: cpu/"})
    EXPECT_THAT(alone.out, HasSubstr(part));
  std::vector<std::string> more = words;
  more.insert(more.end(), {"-n", "3", "a"});
  const ProgramResult with_prompt = run_program(more);
  EXPECT_EQ(with_prompt.status, 0);
  EXPECT_THAT(with_prompt.err, HasSubstr("self-check passed"));
  EXPECT_EQ(parse_json(with_prompt.out, "answer")["usage"]["completion_tokens"], 3);
}

}  // namespace
}  // namespace tandem
