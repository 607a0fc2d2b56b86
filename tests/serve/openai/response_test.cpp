// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "serve/openai/response.h"

#include <gtest/gtest.h>

#include <limits>

#include "serve/openai/api_error.h"

namespace tandem {
namespace {

using Kind = AnswerEvent::Kind;

TEST(Response, chunks_of_each_interface) {
  EXPECT_EQ(chunk_choice(1, delta_of({Kind::kContent, 0, "hi"}, ""), nullptr, nullptr).dump(),
            R"({"index":1,"delta":{"content":"hi"},"logprobs":null,"finish_reason":null})");
  EXPECT_EQ(chunk_choice(0, OrderedJson::object(), nullptr, "stop").dump(),
            R"({"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"})");
  EXPECT_EQ(text_choice(0, "", nullptr, finish_json(FinishReason::kLength)).dump(),
            R"({"index":0,"text":"","logprobs":null,"finish_reason":"length"})");
  EXPECT_EQ(delta_of({Kind::kReasoning, 0, "hm"}, "").dump(), R"({"reasoning_content":"hm"})");
  EXPECT_EQ(delta_of({Kind::kCallBegin, 1, "f"}, "call_7").dump(),
            R"({"tool_calls":[{"index":1,"id":"call_7","type":"function","function":{"name":"f","arguments":""}}]})");
  EXPECT_EQ(delta_of({Kind::kArguments, 1, "{}"}, "call_7").dump(),
            R"({"tool_calls":[{"index":1,"function":{"arguments":"{}"}}]})");
  EXPECT_EQ(event_of({{"a", "b\n\xff"}}), "data: {\"a\":\"b\\n\xEF\xBF\xBD\"}\n\n")
      << "an event is one line, whatever is in it";
}

TEST(Response, messages_say_only_what_they_have) {
  EXPECT_EQ(chat_choice(0, {.content = "hi"}, nullptr, "stop")["message"].dump(),
            R"({"role":"assistant","content":"hi","refusal":null})");
  EXPECT_EQ(chat_choice(0, {}, nullptr, "stop")["message"]["content"], "");
  EXPECT_EQ(chat_choice(0, {.reasoning = "hm"}, nullptr, "length")["message"].dump(),
            R"({"role":"assistant","content":null,"refusal":null,"reasoning_content":"hm"})");
  EXPECT_EQ(
      chat_choice(0, {.calls = {{"call_7", "f", "{}"}}}, nullptr, "tool_calls")["message"].dump(),
      R"({"role":"assistant","content":null,"refusal":null,"tool_calls":[{"id":"call_7","type":"function","function":{"name":"f","arguments":"{}"}}]})");
}

TEST(Response, numbers_that_json_does_not_know) {
  const Tokenizer tokenizer = open_model("tests/goldens/llama").tokenizer;
  const std::vector<SampledToken> tokens = {{.id = 70, .logprob = -std::numeric_limits<float>::infinity()}};
  EXPECT_EQ(logprobs_json(Endpoint::kCompletions, tokens, tokenizer, 3)["token_logprobs"][0], -9999.0);
  EXPECT_EQ(logprobs_json(Endpoint::kCompletions, tokens, tokenizer, 3)["text_offset"][0], 3);
}

TEST(ApiErrors, our_errors_by_their_code) {
  EXPECT_EQ(api_error(Error(ErrorCode::kInvalidArgument, "x")).status, 400);
  EXPECT_EQ(api_error(Error(ErrorCode::kOutOfResources, "x")).status, 429);
  const ApiError internal = api_error(Error(ErrorCode::kInternal, "at 0xdeadbeef in /home"));
  EXPECT_EQ(internal.status, 500);
  EXPECT_EQ(internal.message(), "internal error");
  EXPECT_EQ(error_json(ApiError(400, "m", "p", "c")).dump(),
            R"({"error":{"message":"m","type":"invalid_request_error","param":"p","code":"c"}})");
}

}  // namespace
}  // namespace tandem
