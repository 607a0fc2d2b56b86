// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "sched/admission.h"

#include <gtest/gtest.h>

#include "tests/base/error_of.h"

namespace tandem {
namespace {

constexpr std::int64_t kBlocks = 4;
const SchedulerConfig kConfig{.context_tokens_max = 512, .vocab = 10};

Request request_of(std::size_t prompt_tokens, std::int32_t new_tokens_max) {
  return {.prompt = std::vector<std::int32_t>(prompt_tokens, 1), .new_tokens_max = new_tokens_max};
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
  EXPECT_TRUE(check_request(request_of(511, 512), kConfig, 8));  // ends at the context's limit
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
