// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "session/request_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/base/error_of.h"

namespace tandem {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

class RequestJson : public testing::Test {
 protected:
  JsonRequest read(const std::string& text, const TextRequest& defaults = {}, bool as_chat = false) const {
    return read_request(OrderedJson::parse(text), model_, defaults, as_chat);
  }
  std::string fault(const std::string& text) const {
    try {
      read(text);
    } catch (const Error& error) {
      return error.message();
    }
    return {};
  }

  const OpenModel model_ = open_model("tests/goldens/llama");
};

TEST_F(RequestJson, EveryOptionArrives) {
  const JsonRequest read = this->read(R"({"id": {"n": 1}, "prompt_ids": [3, 4], "max_tokens": 9, "stop": ["a", "b"],
    "temperature": 0.5, "top_p": 0.75, "top_k": 7, "min_p": 0.25, "seed": 11, "repetition_penalty": 1.5,
    "presence_penalty": -1, "frequency_penalty": 2, "logprobs": 3, "logit_bias": {"17": -2.5}})");
  EXPECT_EQ(read.id, OrderedJson::parse(R"({"n": 1})"));
  const TextRequest& r = read.request;
  EXPECT_THAT(r.prompt, ElementsAre(3, 4));
  EXPECT_EQ(r.new_tokens_max, 9);
  EXPECT_THAT(r.stop, ElementsAre("a", "b"));
  const SamplingParams& s = r.sampling;
  EXPECT_EQ(s.temperature, 0.5f);
  EXPECT_EQ(s.top_p, 0.75f);
  EXPECT_EQ(s.top_k, 7);
  EXPECT_EQ(s.min_p, 0.25f);
  EXPECT_EQ(s.seed, 11u);
  EXPECT_EQ(s.repetition_penalty, 1.5f);
  EXPECT_EQ(s.presence_penalty, -1);
  EXPECT_EQ(s.frequency_penalty, 2);
  EXPECT_EQ(s.logprobs, 3);
  EXPECT_THAT(s.logit_bias, ElementsAre(Pair(17, -2.5f)));
}

TEST_F(RequestJson, AFormOfTheAnswer) {
  EXPECT_FALSE(read(R"({"prompt": "a"})").form);
  const JsonRequest schema = read(R"({"prompt": "a", "json_schema": {"type": "object", "b": 1}})");
  EXPECT_EQ(schema.form->kind, GrammarKind::kJsonSchema);
  EXPECT_THAT(schema.form->source, testing::StartsWith(R"({"type":"object","b":1)")) << "in the order of the client";
  EXPECT_FALSE(schema.conversation);
  EXPECT_EQ(read(R"({"prompt": "a", "regex": "b+"})").form->kind, GrammarKind::kRegex);
  EXPECT_EQ(read(R"({"prompt": "a", "choice": ["x", "y"]})").form->source, R"(start: "x" | "y")");
  EXPECT_EQ(read(R"({"prompt": "a", "grammar": "start: \"a\""})").form->kind, GrammarKind::kLark);
  EXPECT_TRUE(read(R"({"messages": [{"role": "user", "content": "a"}], "regex": "b"})").conversation);
  EXPECT_TRUE(read(R"({"prompt": "a"})", {}, true).conversation);
  EXPECT_THAT(fault(R"({"prompt": "a", "choice": []})"), HasSubstr("\"choice\" must be"));
  EXPECT_THAT(fault(R"({"prompt": "a", "json_schema": "{}"})"), HasSubstr("\"json_schema\" must be"));
  EXPECT_THAT(fault(R"({"prompt": "a", "regex": "b", "choice": ["c"]})"), HasSubstr("one form"));
}

TEST_F(RequestJson, WhatIsNotNamedIsTheDefault) {
  TextRequest defaults;
  defaults.new_tokens_max = 5;
  defaults.sampling.top_k = 2;
  const JsonRequest read = this->read(R"({"prompt": "The work", "stop": "x"})", defaults);
  EXPECT_TRUE(read.id.is_null());
  EXPECT_EQ(read.request.new_tokens_max, 5);
  EXPECT_EQ(read.request.sampling.top_k, 2);
  EXPECT_THAT(read.request.stop, ElementsAre("x"));
  EXPECT_EQ(read.request.prompt, model_.text_prompt("The work"));
}

TEST_F(RequestJson, APromptCanBeAMessage) {
  const auto message = read(R"({"messages": [{"role": "user", "content": "Hello"}]})").request.prompt;
  EXPECT_EQ(read(R"({"prompt": "Hello"})", {}, true).request.prompt, message);
  EXPECT_NE(read(R"({"prompt": "Hello"})").request.prompt, message);
}

TEST_F(RequestJson, FaultsNameTheKey) {
  EXPECT_THAT(fault("[]"), HasSubstr("object"));
  EXPECT_THAT(fault("{}"), HasSubstr("\"prompt\""));
  EXPECT_THAT(fault(R"({"prompt": "a", "prompt_ids": [1]})"), HasSubstr("this one has 2"));
  EXPECT_THAT(fault(R"({"prompt": 3})"), HasSubstr("\"prompt\" must be text"));
  EXPECT_THAT(fault(R"({"prompt_ids": [1.5]})"), HasSubstr("\"prompt_ids\""));
  EXPECT_THAT(fault(R"({"prompt_ids": [-1]})"), HasSubstr("\"prompt_ids\""));
  EXPECT_THAT(fault(R"({"prompt": "a", "temprature": 1})"), HasSubstr("\"temprature\""));
  EXPECT_THAT(fault(R"({"prompt": "a", "max_tokens": 0})"), HasSubstr("not 0"));
  EXPECT_THAT(fault(R"({"prompt": "a", "max_tokens": 1e99})"), HasSubstr("\"max_tokens\""));
  EXPECT_THAT(fault(R"({"prompt": "a", "max_tokens": 99999999999})"), HasSubstr("not 99999999999"));
  EXPECT_THAT(fault(R"({"prompt": "a", "seed": 18446744073709551615})"), HasSubstr("\"seed\""));
  EXPECT_THAT(fault(R"({"prompt": "a", "top_p": "1"})"), HasSubstr("\"top_p\" must be a number"));
  EXPECT_THAT(fault(R"({"prompt": "a", "stop": [1]})"), HasSubstr("\"stop\""));
  EXPECT_THAT(fault(R"({"prompt": "a", "logit_bias": {"x": 1}})"), HasSubstr("token ids"));
  EXPECT_THAT(fault(R"({"prompt": "a", "logit_bias": [1]})"), HasSubstr("\"logit_bias\""));
}

TEST(RequestJsonPictures, AreFilesAndDataUrlsInOrder) {
  const OpenModel model = open_model("tests/goldens/step3_vl");
  const auto read = [&](const std::string& text) { return read_request(OrderedJson::parse(text), model, {}, false); };
  const TextRequest request = read(R"({"messages": [{"role": "user", "content": [
    {"type": "image", "path": "tests/goldens/pictures/rgb.png"}, {"type": "text", "text": "?"},
    {"type": "image", "path": "tests/goldens/pictures/smooth.jpg"}]}]})")
                                  .request;
  ASSERT_EQ(request.pictures.size(), 2u);
  EXPECT_LT(request.pictures[0].places.back().position, request.pictures[1].places.front().position);
  EXPECT_NE(request.pictures[0].picture->digest, request.pictures[1].picture->digest);
  const auto refusal = [&](const std::string& text) { return error_of([&] { read(text); }).message(); };
  const auto part = [](const std::string& text) {
    return R"({"messages": [{"role": "user", "content": [)" + text + "]}]}";
  };
  EXPECT_THAT(refusal(part(R"({"type": "image"})")), HasSubstr("path"));
  EXPECT_THAT(refusal(part(R"({"type": "image", "path": "no.png"})")), HasSubstr("no.png: cannot be read"));
  EXPECT_THAT(refusal(part(R"({"type": "image_url", "image_url": {"url": "http://x/y.png"}})")),
              HasSubstr("remote pictures are not fetched"));
  EXPECT_THAT(refusal(part(R"({"type": "image_url", "image_url": {"url": "data:image/png;base64,Zm9v"}})")),
              HasSubstr("no picture"));
  EXPECT_THAT(refusal(R"({"prompt_ids": [1, 498]})"), HasSubstr("1 placeholders for pictures and 0 pictures"));
  const OpenModel text = open_model("tests/goldens/llama");
  EXPECT_THAT(error_of([&] {
                read_request(OrderedJson::parse(part(R"({"type": "image", "path": "tests/goldens/pictures/rgb.png"})")),
                             text, {}, false);
              }).message(),
              HasSubstr("sees no pictures"));
}

}  // namespace
}  // namespace tandem
