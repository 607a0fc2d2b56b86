// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "engine/engine.h"

#include <gtest/gtest.h>

#include "tests/base/error_of.h"
#include "tests/engine/recording_engine.h"

namespace tandem {
namespace {

Request request_of(std::int64_t prompt_tokens, std::int32_t new_tokens) {
  Request request;
  request.prompt = random_prompt(prompt_tokens, 1);
  request.new_tokens_max = new_tokens;
  return request;
}

class EngineTest : public testing::TestWithParam<const char*> {
 protected:
  std::unique_ptr<Checkpoint> checkpoint_ = Checkpoint::open("tests/goldens/step3_text_bf16");
};
INSTANTIATE_TEST_SUITE_P(Layouts, EngineTest, testing::Values("local", "1A1F", "2A2F"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(EngineTest, StopsAtOnceInTheMiddleOfAnswers) {
  RecordingEngine engine(*checkpoint_, small_engine(GetParam(), 3));  // waits ten seconds for a late answer
  std::vector<RequestId> ids;
  for (int i = 0; i < 6; ++i) ids.push_back(engine.submit(request_of(20, 230)));
  engine.wait_for_tokens(ids.back(), 1);
  const RealClock clock;
  const Nanoseconds begin = clock.now();
  engine.engine().stop();
  EXPECT_LT(clock.now() - begin, 5'000'000'000);
  engine.wait();  // everybody has heard
  int cancelled = 0;
  for (const RequestId id : ids) cancelled += engine.result(id).end.finish == FinishReason::kCancelled;
  EXPECT_GT(cancelled, 0);
  for (const AttentionWorker* worker : engine.engine().attention_workers()) {
    EXPECT_EQ(worker->load().kv.held, 0);
    EXPECT_EQ(worker->outstanding(), 0);
  }
}

TEST_P(EngineTest, AfterItHasStoppedNothingIsTakenOrWaitedFor) {
  RecordingEngine engine(*checkpoint_, small_engine(GetParam()));
  engine.engine().stop();
  const RequestId id = engine.submit(request_of(5, 5));
  engine.wait();
  EXPECT_EQ(engine.result(id).end.finish, FinishReason::kCancelled);
  bool ran = false;
  EXPECT_FALSE(engine.engine().attention_workers()[0]->between_steps([&] { ran = true; }));
  EXPECT_FALSE(ran);
}

TEST_P(EngineTest, CancelEndsOneRequestAndNobodyElses) {
  RecordingEngine engine(*checkpoint_, small_engine(GetParam(), 2));
  const Recorded expected = engine.run({request_of(30, 40)}).front();
  const RequestId other = engine.submit(request_of(30, 40)), cancelled = engine.submit(request_of(30, 226));
  engine.wait_for_tokens(cancelled, 2);
  engine.engine().cancel(cancelled);
  engine.engine().cancel(12345);  // nobody's
  engine.wait();
  EXPECT_EQ(engine.result(cancelled).end.finish, FinishReason::kCancelled);
  EXPECT_LT(engine.result(cancelled).tokens.size(), 226u);
  EXPECT_EQ(engine.result(other).tokens, expected.tokens);
  engine.check_integrity();
}

TEST_P(EngineTest, ARequestThatCannotBeServedEndsWithTheReason) {
  RecordingEngine engine(*checkpoint_, small_engine(GetParam()));
  Request unknown_token = request_of(5, 5);
  unknown_token.prompt[2] = 512;
  const std::vector<Recorded> results =
      engine.run({request_of(0, 5), request_of(256, 5), unknown_token, request_of(5, 0), request_of(5, 5)});
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(results[i].end.finish, FinishReason::kError);
    EXPECT_EQ(results[i].end.status.error().code(), ErrorCode::kInvalidArgument);
  }
  EXPECT_NE(results[1].end.status.error().message().find("--context-tokens-max"), std::string::npos);
  EXPECT_NE(results[2].end.status.error().message().find("512"), std::string::npos);
  EXPECT_EQ(results[4].tokens.size(), 5u);
  EXPECT_EQ(engine.engine().attention_workers()[0]->outstanding(), 0);
}

TEST_P(EngineTest, StopsAtAStopToken) {
  RecordingEngine engine(*checkpoint_, small_engine(GetParam()));
  const std::vector<std::int32_t> all = engine.run({request_of(20, 30)}).front().tokens;
  Request request = request_of(20, 30);
  request.stop_ids = {all[9]};
  const Recorded found = engine.run({request}).front();
  const auto first = static_cast<std::size_t>(std::find(all.begin(), all.end(), all[9]) - all.begin());
  EXPECT_EQ(found.end.finish, FinishReason::kStop);
  EXPECT_EQ(found.tokens, std::vector<std::int32_t>(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(first) + 1));
}

TEST_P(EngineTest, TellsWhatItTookAndHowFarLoadingIs) {
  std::vector<LoadProgress> heard;
  const auto engine =
      Engine::start(*checkpoint_, small_engine(GetParam()), [&](const LoadProgress& p) { heard.push_back(p); });
  ASSERT_FALSE(heard.empty());
  for (std::size_t i = 1; i < heard.size(); ++i) {
    EXPECT_GE(heard[i].bytes_done, heard[i - 1].bytes_done);
    EXPECT_EQ(heard[i].bytes_total, heard[0].bytes_total);
  }
  EXPECT_EQ(heard.back().bytes_done, heard.back().bytes_total);
  EXPECT_EQ(heard.back().bytes_total, static_cast<std::int64_t>(checkpoint_->tensor_bytes()));
  EXPECT_GT(engine->weight_bytes(), 0);
  // 4 layers, one head of 64 for K and one for V, two bytes each.
  EXPECT_EQ(engine->kv_bytes(), engine->config().layout.attention_workers * 2048 * 4 * 2 * 64 * 2);
  EXPECT_EQ(std::ssize(engine->ffn_workers()), engine->config().layout.ffn_workers);
}

TEST(Engine, RefusesMoreThanItsQueueHolds) {
  const auto checkpoint = Checkpoint::open("tests/goldens/llama");
  EngineConfig config = small_engine();
  config.queue_max = 2;
  config.sequences_max = 1;
  const auto engine = Engine::start(*checkpoint, config);
  const auto events = std::make_shared<EventStream>();
  int refused = 0;
  for (int i = 0; i < 50; ++i) {
    Request request = request_of(200, 50);
    request.id = engine->next_id();
    const Status status = engine->submit(std::move(request), events);
    if (status) continue;
    ++refused;
    EXPECT_EQ(status.error().code(), ErrorCode::kOutOfResources);
    EXPECT_NE(status.error().message().find("--queue-max"), std::string::npos);
  }
  EXPECT_GT(refused, 0);
}

TEST(Engine, ABackendThatIsNotThereIsAnError) {
  const auto checkpoint = Checkpoint::open("tests/goldens/llama");
  EngineConfig config = small_engine();
  config.backend = "abacus";
  EXPECT_NE(error_of([&] { Engine::start(*checkpoint, config); }).message().find("abacus"), std::string::npos);
}

}  // namespace
}  // namespace tandem
