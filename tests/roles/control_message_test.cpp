// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "roles/control_message.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

namespace tandem {
namespace {

using testing::HasSubstr;

Identity some_identity() {
  return {.deployment = "fleet",
          .layout = "2A1F",
          .numbers = "kv bf16",
          .links = "sealed",
          .settings = 7,
          .model = 0xdeadbeef};
}

Request some_request() {
  Request r;
  r.id = 12;
  r.prompt = {1, 2, 3};
  r.answer = {4};
  r.new_tokens_max = 9;
  r.stop_ids = {0, 5};
  r.sampling = {.temperature = 0.7f, .top_k = 4, .top_p = 0.5f, .seed = 99, .logprobs = 2, .logit_bias = {{3, -1.5f}}};
  r.cache_salt = 77;
  r.prompt_logits = true;
  r.embedded = {{.position = 1, .count = 2, .first_row = 3, .rows = {}}};
  return r;
}

Submit some_submit() {
  return {some_request(), {5}, ConstraintRecipe{.kind = 1, .start = 2, .source = "[ab]+"}};
}

Rows some_rows() {
  Rows rows{.begins = false, .digest = {}, .hidden = 2, .values = {0.5f, -1.f, NAN, 3.f}};
  rows.digest[31] = 9;
  return rows;
}

News some_news() {
  News news{.epoch = 3, .event = {}};
  news.event.id = 12;
  news.event.tokens = {{.id = 5, .logprob = -INFINITY, .top_logprobs = {{5, -0.5f}, {6, -1.f}}},
                       {.id = -1, .failed = true}};
  news.event.finish = FinishReason::kError;
  news.event.status = Status(ErrorCode::kUnavailable, "F0 is gone");
  news.event.prompt_tokens = 3;
  news.event.cached_tokens = 2;
  news.event.preemptions = 1;
  return news;
}

std::vector<ControlMessage> one_of_each() {
  return {Greeting{some_identity(), 2},
          Welcome{some_identity(), 2, 4711, 1 << 20, 64, "cpu/avx2"},
          Refusal{ErrorCode::kUnavailable, "no"},
          Prepare{3, 0xfeed, {1, 0, 1}},
          Addresses{3, {{}, {{std::byte{1}, std::byte{2}}, {std::byte{3}}}}},
          Connect{3, {{{std::byte{9}}, {}}, {}}},
          Ready{3},
          Dissolve{},
          some_submit(),
          Cancel{12},
          some_news(),
          Report{1, 2, 3, 4, 5, 6, {7, 8, 9, {10, 11, 12, 13, 14, 15, 16}}},
          Beat{},
          Order{.deployment = "fleet", .kind = OrderKind::kDrain, .rank = 3},
          Told{"{}"},
          some_rows(),
          Yield{12},
          Page{3, 12, 1, false, {std::byte{4}, std::byte{5}}},
          Yielded{3, 12}};
}

TEST(ControlMessage, EachKindComesBackAsItWas) {
  const std::vector<ControlMessage> all = one_of_each();
  ASSERT_EQ(all.size(), std::variant_size_v<ControlMessage>);
  for (const ControlMessage& message : all) {
    const std::vector<std::byte> bytes = to_bytes(message);
    ASSERT_EQ(control_message_bytes(bytes).value(), bytes.size());
    Result<ControlMessage> back = parse_control(bytes);
    ASSERT_TRUE(back) << "kind " << message.index();
    EXPECT_EQ(back.value().index(), message.index());
    EXPECT_EQ(to_bytes(back.value()), bytes);
  }
}

TEST(ControlMessage, FieldsArriveWhereTheyWere) {
  Result<ControlMessage> submit = parse_control(to_bytes(some_submit()));
  const Request& request = std::get<Submit>(submit.value()).request;
  EXPECT_EQ(request.prompt, some_request().prompt);
  EXPECT_EQ(request.answer, some_request().answer);
  EXPECT_EQ(request.sampling.seed, 99u);
  EXPECT_EQ(request.sampling.logit_bias, some_request().sampling.logit_bias);
  EXPECT_TRUE(request.prompt_logits);
  ASSERT_EQ(request.embedded.size(), 1u);
  EXPECT_EQ(request.embedded[0].position, 1);
  EXPECT_EQ(request.embedded[0].count, 2);
  EXPECT_EQ(request.embedded[0].first_row, 3);
  EXPECT_EQ(std::get<Submit>(submit.value()).contents, std::vector<std::uint32_t>{5});
  EXPECT_EQ(std::get<Submit>(submit.value()).constraint, some_submit().constraint);
  EXPECT_FALSE(std::get<Submit>(parse_control(to_bytes(Submit{some_request()})).value()).constraint);
  Result<ControlMessage> rows = parse_control(to_bytes(some_rows()));
  EXPECT_EQ(std::get<Rows>(rows.value()).digest, some_rows().digest);
  EXPECT_EQ(std::get<Rows>(rows.value()).values[3], 3.f);
  EXPECT_FALSE(std::get<Rows>(rows.value()).begins);
  Result<ControlMessage> news = parse_control(to_bytes(some_news()));
  const RequestEvent& event = std::get<News>(news.value()).event;
  EXPECT_EQ(event.tokens[0].logprob, -INFINITY);
  EXPECT_EQ(event.tokens[0].top_logprobs[1].first, 6);
  EXPECT_TRUE(event.tokens[1].failed);
  EXPECT_EQ(event.status.error().message(), "F0 is gone");
  Result<ControlMessage> greeting = parse_control(to_bytes(Greeting{some_identity(), 2}));
  EXPECT_EQ(std::get<Greeting>(greeting.value()), (Greeting{some_identity(), 2}));
}

TEST(ControlMessage, AMessageThatIsCutIsRefusedWhereverItIs) {
  for (const ControlMessage& message : one_of_each()) {
    const std::vector<std::byte> whole = to_bytes(message);
    for (std::size_t bytes = kControlHeaderBytes; bytes < whole.size(); ++bytes) {
      std::vector<std::byte> cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(bytes));
      EXPECT_FALSE(parse_control(cut)) << message.index() << " cut to " << bytes;
      const std::uint64_t length = bytes - kControlHeaderBytes;  // even where the header says so
      std::memcpy(cut.data() + 8, &length, sizeof length);
      EXPECT_FALSE(parse_control(cut)) << message.index() << " cut to " << bytes;
    }
  }
}

TEST(ControlMessage, RefusalsSayWhy) {
  const auto refusal = [](std::vector<std::byte> bytes) {
    const Result<ControlMessage> result = parse_control(bytes);
    return result ? "taken" : result.error().message();
  };
  std::vector<std::byte> bytes = to_bytes(Cancel{1});
  bytes[0] = std::byte{0};
  EXPECT_THAT(refusal(bytes), HasSubstr("magic is"));
  bytes = to_bytes(Cancel{1});
  bytes[4] = std::byte{200};
  EXPECT_EQ(refusal(bytes), "control message: kind is 200, there are 19");
  bytes = to_bytes(Cancel{1});
  bytes[15] = std::byte{1};
  EXPECT_THAT(refusal(bytes), HasSubstr("limit is 67108864"));
  bytes = to_bytes(Prepare{1, 0, {1, 1}});
  bytes[28] = std::byte{255};  // more elements than there are bytes
  EXPECT_EQ(refusal(bytes), "control message: 22 bytes do not fit kind 3");
  bytes = to_bytes(Refusal{ErrorCode::kInternal, ""});
  bytes[16] = std::byte{99};  // no such code
  EXPECT_THAT(refusal(bytes), HasSubstr("do not fit"));
  EXPECT_EQ(refusal({}), "control message: 0 bytes of 0");
  EXPECT_EQ(refusal(std::vector<std::byte>(15)), "control message: 15 bytes of 0");
  EXPECT_EQ(control_message_bytes(std::vector<std::byte>(15)).value(), 0u);
}

TEST(ControlMessage, AnotherVersionIsReadAsThatWhateverItsFieldsAre) {
  for (const std::uint32_t version : {0u, 1u, kControlVersion + 1, ~0u}) {
    std::vector<std::byte> bytes = to_bytes(Greeting{});
    std::memcpy(bytes.data() + kControlHeaderBytes, &version, sizeof version);
    for (const std::size_t length : {bytes.size(), kControlHeaderBytes + sizeof version, bytes.size() + 100}) {
      bytes.resize(length, std::byte{0xee});
      const std::uint64_t field = length - kControlHeaderBytes;
      std::memcpy(bytes.data() + 8, &field, sizeof field);
      Result<ControlMessage> message = parse_control(bytes);
      ASSERT_TRUE(message) << message.error().message();
      EXPECT_EQ(std::get<Greeting>(message.value()).identity.version, version);
    }
  }
}

TEST(ControlMessage, AStrangersLimitIsSmaller) {
  Request request;
  request.prompt.assign(kGreetingBytesMax, 1);
  const std::vector<std::byte> bytes = to_bytes(Submit{request});
  EXPECT_TRUE(control_message_bytes(bytes));
  EXPECT_THAT(control_message_bytes(bytes, kGreetingBytesMax).error().message(), HasSubstr("limit is 65536"));
}

}  // namespace
}  // namespace tandem
