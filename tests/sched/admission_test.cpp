// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "sched/admission.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "tests/base/error_of.h"

namespace tandem {
namespace {

using testing::HasSubstr;

constexpr std::int64_t kBlocks = 4;
const SchedulerConfig kConfig{.context_tokens_max = 512, .vocab = 10};

Request request_of(std::size_t prompt_tokens, std::int32_t new_tokens_max) {
  return {.prompt = std::vector<std::int32_t>(prompt_tokens, 1), .new_tokens_max = new_tokens_max};
}

Request going_on(std::int32_t new_tokens_max, std::vector<std::int32_t> answer) {
  Request request = request_of(1, new_tokens_max);
  request.answer = std::move(answer);
  return request;
}

struct Refusal {
  Request request;
  ErrorCode code;
  std::string message;
};

TEST(Admission, ARefusalNamesTheThingTheValueAndTheLimit) {
  Request foreign = request_of(3, 1);
  foreign.prompt[2] = 10;
  Request negative = request_of(1, 1);
  negative.prompt[0] = -1;
  const Refusal refusals[] = {
      {request_of(0, 1), ErrorCode::kInvalidArgument, "prompt has 0 tokens, must have at least 1"},
      {request_of(512, 1), ErrorCode::kInvalidArgument,
       "prompt has 512 tokens, limit is 511 (--context-tokens-max, less one for the answer)"},
      {request_of(1, 0), ErrorCode::kInvalidArgument,
       "answer may have 0 tokens, must be 1 to 512 (--context-tokens-max)"},
      {request_of(1, 513), ErrorCode::kInvalidArgument,
       "answer may have 513 tokens, must be 1 to 512 (--context-tokens-max)"},
      {foreign, ErrorCode::kInvalidArgument, "prompt token 2 is 10, vocabulary has 10"},
      {negative, ErrorCode::kInvalidArgument, "prompt token 0 is -1, vocabulary has 10"},
      {going_on(2, {1, 2}), ErrorCode::kInvalidArgument, "answer has 2 tokens, limit is 1 to go on with"},
      {going_on(3, {1, 10}), ErrorCode::kInvalidArgument, "answer token 1 is 10, vocabulary has 10"},
      {request_of(256, 2), ErrorCode::kOutOfResources,
       "prompt and answer need KV for 257 tokens, limit is 256 (--kv-tokens)"},
  };
  for (const Refusal& refusal : refusals) {
    const Status status = check_request(refusal.request, kConfig, kBlocks);
    ASSERT_FALSE(status) << refusal.message;
    EXPECT_EQ(status.error().code(), refusal.code);
    EXPECT_EQ(status.error().message(), refusal.message);
  }
}

TEST(Admission, WhatJustFitsIsTaken) {
  EXPECT_TRUE(check_request(request_of(1, 256), kConfig, kBlocks));
  EXPECT_TRUE(check_request(request_of(256, 1), kConfig, kBlocks));
  EXPECT_TRUE(check_request(going_on(3, {1, 2}), kConfig, kBlocks));
  EXPECT_TRUE(check_request(request_of(511, 512), kConfig, 8));  // ends at the context's limit
}

TEST(CheckSampling, NamesWhatIsOutOfRange) {
  const auto fault = [](auto change) {
    SamplingParams s;
    change(s);
    const Status status = check_sampling(s, 100);
    return status ? std::string() : status.error().message();
  };
  EXPECT_EQ(fault([](SamplingParams&) {}), "");
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(fault([](auto& s) { s.temperature = -1; }), HasSubstr("temperature is -1"));
  EXPECT_THAT(fault([&](auto& s) { s.temperature = nan; }), HasSubstr("temperature"));
  EXPECT_THAT(fault([](auto& s) { s.top_p = 0; }), HasSubstr("top_p is 0"));
  EXPECT_THAT(fault([&](auto& s) { s.top_p = nan; }), HasSubstr("top_p"));
  EXPECT_THAT(fault([](auto& s) { s.top_k = -1; }), HasSubstr("top_k"));
  EXPECT_THAT(fault([](auto& s) { s.min_p = 1.5f; }), HasSubstr("min_p"));
  EXPECT_THAT(fault([](auto& s) { s.repetition_penalty = 0; }), HasSubstr("repetition_penalty"));
  EXPECT_THAT(fault([](auto& s) { s.presence_penalty = 1e9f; }), HasSubstr("presence_penalty"));
  EXPECT_THAT(fault([](auto& s) { s.frequency_penalty = -1e9f; }), HasSubstr("frequency_penalty"));
  EXPECT_THAT(fault([](auto& s) { s.logprobs = 33; }), HasSubstr("logprobs is 33"));
  EXPECT_THAT(fault([](auto& s) { s.logit_bias = {{100, 0.f}}; }), HasSubstr("0 … 99"));
  EXPECT_THAT(fault([&](auto& s) { s.logit_bias = {{1, nan}}; }), HasSubstr("logit_bias"));
  EXPECT_THAT(fault([](auto& s) { s.logit_bias.resize(1025); }), HasSubstr("1025"));
}

TEST(Admission, AConfigurationMustHoldTogether) {
  const auto message = [](SchedulerConfig config, std::int64_t blocks) {
    return error_of([&] { check_config(config, {.blocks = blocks}); }).message();
  };
  SchedulerConfig config = kConfig;
  EXPECT_NO_THROW(check_config(config, {.blocks = 1}));
  EXPECT_EQ(message(config, 0), "KV blocks is 0, must be at least 1");
  EXPECT_EQ(message(config, std::int64_t{1} << 31), "KV has 2147483648 blocks, limit is 2147483647");
  config.rows_per_step_max = 63;
  EXPECT_EQ(message(config, 1), "--rows-per-step-max is 63, must be at least --sequences-max, which is 64");
  config.sequences_max = 0;
  EXPECT_EQ(message(config, 1), "--sequences-max is 0, must be at least 1");
}

}  // namespace
}  // namespace tandem
