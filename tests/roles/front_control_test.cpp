// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Orders to a running front; workers are real processes.
#include "roles/front_control.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <optional>

#include "base/json.h"
#include "tests/base/error_of.h"
#include "tests/engine/recording_engine.h"
#include "tests/roles/deployment_run.h"

namespace tandem {
namespace {

using testing::HasSubstr;

constexpr Nanoseconds kPatience = 60 * kSecond;

class FrontControlTest : public testing::Test {
 protected:
  void start(std::int32_t attention, std::int32_t ffn, const std::string& trust = "", const char* model = "llama") {
    Deployment deployment = small_deployment(model, attention, ffn);
    deployment.front.control_port = free_port();
    give_trust(deployment, trust, folder_.path());
    run_ = std::make_unique<DeploymentRun>(std::move(deployment));
    run_->connect();
  }
  Order order(OrderKind kind, std::int32_t rank = 0) const {
    return {.deployment = run_->deployment().name, .kind = kind, .rank = rank};
  }
  Json ask(OrderKind kind, std::int32_t rank = 0) const {
    return parse_json(order_front(run_->deployment(), "", order(kind, rank), kPatience).json, "told");
  }
  std::string refusal(const Order& order) const {
    return error_of([&] { order_front(run_->deployment(), "", order, kPatience); }).message();
  }
  Json wait_for(const std::string& state, std::int32_t rank) const {
    while (true) {
      const Json status = ask(OrderKind::kStatus);
      if (status["phase"].get<std::string>() == "running" && state_of(status, rank) == state) return status;
      usleep(10'000);
    }
  }
  static std::string state_of(const Json& status, std::int32_t rank) {
    return status["workers"][static_cast<std::size_t>(rank)]["state"].get<std::string>();
  }

  const TemporaryFolder folder_;
  std::unique_ptr<DeploymentRun> run_;
};

std::vector<Request> some_requests(std::int32_t new_tokens) {
  std::vector<Request> requests;
  for (std::uint64_t i = 0; i < 6; ++i) {
    Request request;
    request.prompt = random_prompt(static_cast<std::int64_t>(5 + 17 * i), i + 1);
    request.new_tokens_max = new_tokens;
    request.sampling.seed = 100 + i;
    request.sampling.temperature = i % 2 == 0 ? 0.f : 0.9f;
    requests.push_back(std::move(request));
  }
  return requests;
}

TEST_F(FrontControlTest, StatusTellsOfEveryWorker) {
  start(2, 1, "secret");
  const RequestId id = run_->submit({.prompt = {1, 2, 3}, .new_tokens_max = 8});
  run_->wait();
  EXPECT_EQ(run_->answer(id).tokens.size(), 8u);
  usleep(300'000);  // reports come each heartbeat
  const Json status = ask(OrderKind::kStatus);
  EXPECT_EQ(status["deployment"].get<std::string>(), "test");
  EXPECT_EQ(status["layout"].get<std::string>(), "2A1F");
  EXPECT_EQ(status["phase"].get<std::string>(), "running");
  EXPECT_EQ(status["epoch"].get<int>(), 1);
  ASSERT_EQ(status["workers"].size(), 3u);
  for (std::int32_t rank = 0; rank < 3; ++rank) {
    const Json& worker = status["workers"][static_cast<std::size_t>(rank)];
    EXPECT_EQ(worker["state"].get<std::string>(), "running");
    EXPECT_GT(worker["process"].get<std::int64_t>(), 0);
    EXPECT_EQ(worker.contains("kv_tokens"), rank < 2);
  }
  EXPECT_GT(status["workers"][2]["steps"].get<std::int64_t>(), 0);
}

TEST_F(FrontControlTest, ADrainedAttentionWorkerLosesNoStreamAndComesBack) {
  EngineConfig config = small_engine();
  config.kv_dtype = DType::kF32;
  const std::vector<Request> requests = some_requests(80);
  const std::vector<Recorded> expected =
      RecordingEngine(*Checkpoint::open("tests/goldens/llama"), config).run(requests);
  start(2, 1);
  const std::vector<RequestId> ids = run_->submit_all(requests);
  run_->wait_for_tokens(ids.front(), 5);
  ask(OrderKind::kDrain, 0);
  const Json drained = wait_for("drained", 0);
  EXPECT_EQ(state_of(drained, 1), "running");
  EXPECT_EQ(drained["workers"][0]["requests"].get<int>(), 0);
  run_->wait_for_tokens(ids.back(), 10);
  ask(OrderKind::kAdd, 0);
  run_->wait();
  for (std::size_t i = 0; i < ids.size(); ++i) {
    EXPECT_TRUE(run_->answer(ids[i]).end.status);
    EXPECT_EQ(run_->answer(ids[i]).tokens, expected[i].tokens) << i;
  }
  wait_for("running", 0);
}

// Both attention workers have such requests; those of the first go to the second and compute no prompt there.
class FrontMovedKv : public FrontControlTest, public testing::WithParamInterface<const char*> {};

TEST_P(FrontMovedKv, GoesWithTheRequestsOfADrainedAttentionWorker) {
  EngineConfig config = small_engine();
  config.kv_dtype = DType::kF32;
  std::vector<Request> requests = some_requests(60);
  for (std::uint64_t i = 0; i < requests.size(); ++i) requests[i].prompt = random_prompt(150, 50 + i);
  const std::vector<Recorded> expected =
      RecordingEngine(*Checkpoint::open(std::string("tests/goldens/") + GetParam()), config).run(requests);
  start(2, 1, "secret", GetParam());
  const std::vector<RequestId> ids = run_->submit_all(requests);
  for (const RequestId id : ids) run_->wait_for_tokens(id, 2);
  ask(OrderKind::kDrain, 0);
  const Json drained = wait_for("drained", 0);
  run_->wait();
  EXPECT_GT(drained["moved_requests"].get<int>(), 0);
  EXPECT_GE(drained["moved_pages"].get<int>(), 2 * drained["moved_requests"].get<int>());
  for (std::size_t i = 0; i < ids.size(); ++i) {
    EXPECT_EQ(run_->answer(ids[i]).tokens, expected[i].tokens) << i;
    EXPECT_EQ(run_->answer(ids[i]).end.cached_tokens, 0) << i;
  }
  const std::int64_t found = 128 * drained["moved_requests"].get<std::int64_t>();
  const RealClock clock;  // it is told with the next report
  for (const Nanoseconds end = clock.now() + 60 * kSecond; clock.now() < end; usleep(10'000))
    if (run_->engine().workers().takers()[1]->load().kv.hit_tokens >= found) return;
  FAIL() << "the other worker has not found what came with the requests";
}

INSTANTIATE_TEST_SUITE_P(Models, FrontMovedKv, testing::Values("llama", "deepseek_v3", "step3_text_bf16", "step3p5"));

TEST_F(FrontControlTest, ADrainedWorkerMayEndAndReturnWithoutAChange) {
  start(2, 1);
  ask(OrderKind::kDrain, 1);
  const std::int64_t epoch = wait_for("drained", 1)["epoch"].get<std::int64_t>();
  run_->kill_and_reap(1);
  run_->start(1);
  run_->wait_for_line(1, "ready");
  const RequestId id = run_->submit({.prompt = {1, 2, 3}, .new_tokens_max = 8});
  run_->wait();
  EXPECT_EQ(run_->answer(id).tokens.size(), 8u);
  EXPECT_EQ(ask(OrderKind::kStatus)["epoch"].get<std::int64_t>(), epoch);
  ask(OrderKind::kAdd, 1);
  EXPECT_GT(wait_for("running", 1)["epoch"].get<std::int64_t>(), epoch);
}

TEST_F(FrontControlTest, APortThatIsTakenIsTakenOverWhenItIsFree) {
  Deployment deployment = small_deployment("llama", 1, 1);
  deployment.front.control_port = free_port();
  std::vector<std::string> said;
  std::optional<FrontControl> before(std::in_place, deployment, nullptr, [](const std::string&) {});
  FrontControl after(deployment, nullptr, [&](const std::string& why) { said.push_back(why); });
  std::vector<pollfd> waited;
  after.wait_for(waited);
  EXPECT_TRUE(waited.empty());
  ASSERT_EQ(said.size(), 1u);
  EXPECT_THAT(said.front(), HasSubstr("cannot listen on 127.0.0.1:"));
  before.reset();
  after.move(kPatience, [](const Order&) { return Told{}; });
  after.wait_for(waited);
  EXPECT_EQ(waited.size(), 1u);
}

TEST_F(FrontControlTest, WhatCannotBeIsRefusedWithTheReason) {
  start(1, 1, "secret");
  EXPECT_THAT(refusal(order(OrderKind::kDrain, 0)), HasSubstr("is the last attention worker that is here"));
  EXPECT_THAT(refusal(order(OrderKind::kDrain, 1)), HasSubstr("no replica of it is here"));
  EXPECT_THAT(refusal(order(OrderKind::kAdd, 7)), HasSubstr("rank is 7, there are 2 workers"));
  EXPECT_THAT(refusal({.version = 1, .deployment = "test"}), HasSubstr("version of the control protocol is"));
  EXPECT_THAT(refusal({.deployment = "other"}), HasSubstr("deployment is test, the other has other"));
  Deployment stranger = run_->deployment();
  stranger.trust = {};
  const auto told = [&] { order_front(stranger, "", order(OrderKind::kStatus), kPatience); };
  EXPECT_THAT(error_of(told).message(), HasSubstr("it does not speak TLS"));
  stranger.front.control_port = 0;
  EXPECT_THAT(error_of(told).message(), HasSubstr("gives the front no port for orders"));
  stranger.front.control_port = 1;
  EXPECT_THAT(error_of(told).message(), HasSubstr("is not there: Connection refused"));
  EXPECT_EQ(ask(OrderKind::kStatus)["epoch"].get<int>(), 1);
}

}  // namespace
}  // namespace tandem
