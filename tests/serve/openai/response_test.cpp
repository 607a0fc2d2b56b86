// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "serve/openai/response.h"

#include <gtest/gtest.h>

#include <limits>

#include "serve/openai/api_error.h"

namespace tandem {
namespace {

TEST(Response, chunks_of_each_interface) {
  EXPECT_EQ(chunk_choice(Endpoint::kChat, 1, "hi", nullptr, FinishReason::kNone).dump(),
            R"({"index":1,"delta":{"content":"hi"},"logprobs":null,"finish_reason":null})");
  EXPECT_EQ(chunk_choice(Endpoint::kChat, 0, "", nullptr, FinishReason::kStop).dump(),
            R"({"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"})");
  EXPECT_EQ(chunk_choice(Endpoint::kCompletions, 0, "", nullptr, FinishReason::kLength).dump(),
            R"({"index":0,"text":"","logprobs":null,"finish_reason":"length"})");
  EXPECT_EQ(event_of({{"a", "b\n\xff"}}), "data: {\"a\":\"b\\n\xEF\xBF\xBD\"}\n\n")
      << "an event is one line, whatever is in it";
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
