// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Whole deployments of real processes: the tokens and logits of one process, whatever ends in between.
#include "roles/front.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "base/format.h"
#include "roles/deployment_engine.h"
#include "tests/base/error_of.h"
#include "tests/engine/recording_engine.h"
#include "tests/model/synthetic_checkpoint.h"
#include "tests/roles/deployment_run.h"

namespace tandem {
namespace {

using testing::HasSubstr;

std::vector<Request> some_requests(std::int32_t new_tokens = 12) {
  std::vector<Request> requests;
  for (std::uint64_t i = 0; i < 6; ++i) {
    Request request;
    request.prompt = random_prompt(static_cast<std::int64_t>(5 + 17 * i), i + 1);
    request.new_tokens_max = new_tokens;
    request.sampling.temperature = i % 2 == 0 ? 0.f : 0.9f;
    request.sampling.seed = 100 + i;
    request.prompt_logits = true;
    requests.push_back(std::move(request));
  }
  return requests;
}

// The same in one process and one worker.
std::vector<Recorded> expected_of(const std::string& model, const std::vector<Request>& requests) {
  EngineConfig config = small_engine();
  config.kv_dtype = DType::kF32;
  return RecordingEngine(*Checkpoint::open("tests/goldens/" + model), config).run(requests);
}

// Of a deployment that runs: tokens, ends and logits.
void expect_answers(DeploymentRun& run, const std::vector<Request>& requests, const std::vector<Recorded>& expected) {
  const std::vector<RequestId> ids = run.submit_all(requests);
  run.wait();
  const LogitRows rows = run.logits();
  for (std::size_t i = 0; i < ids.size(); ++i) {
    EXPECT_EQ(run.answer(ids[i]).tokens, expected[i].tokens) << i;
    EXPECT_EQ(run.answer(ids[i]).end.finish, expected[i].end.finish);
    EXPECT_EQ(run.answer(ids[i]).end.prompt_tokens, std::ssize(requests[i].prompt));
    expect_same_rows(expected[i], rows, ids[i]);
  }
}

struct Case {
  const char* model;
  std::int32_t attention, ffn;
  const char* transports;
  const char* trust = "";  // as give_trust takes it
  bool encrypt = false;
  std::int32_t width = 1;  // parts of the experts' width
};

// As small_deployment, with experts that are cut by width too.
Deployment deployment_with_width(const std::string& model, std::int32_t attention, std::int32_t ffn,
                                 std::int32_t width) {
  Deployment deployment = small_deployment(model, attention, ffn);
  deployment.split = {.experts = ffn / width, .width = width};
  return deployment;
}

class FrontProcesses : public testing::TestWithParam<Case> {};

TEST_P(FrontProcesses, HaveTheTokensAndLogitsOfOneProcess) {
  const Case& c = GetParam();
  const std::vector<Request> requests = some_requests();
  const std::vector<Recorded> expected = expected_of(c.model, requests);
  Deployment deployment = deployment_with_width(c.model, c.attention, c.ffn, c.width);
  deployment.link.ucx_transports = c.transports;
  deployment.link.encrypt = c.encrypt;
  const TemporaryFolder folder;
  give_trust(deployment, c.trust, folder.path());
  DeploymentRun run(std::move(deployment));
  run.connect();
  expect_answers(run, requests, expected);
}

INSTANTIATE_TEST_SUITE_P(
    Layouts, FrontProcesses,
    testing::Values(Case{"qwen3_moe", 1, 1, ""}, Case{"qwen3_moe", 2, 2, ""}, Case{"qwen3_moe", 3, 2, "tcp"},
                    Case{"qwen3_moe", 1, 3, ""}, Case{"llama", 1, 1, "tcp"}, Case{"llama", 2, 2, ""},
                    Case{"llama", 3, 2, ""}, Case{"llama", 1, 3, ""}, Case{"deepseek_v3", 2, 2, ""},
                    Case{"step3_text_bf16", 1, 3, ""}, Case{"llama", 1, 1, "", "secret"},
                    Case{"qwen3_moe", 2, 2, "", "secret", true}, Case{"llama", 2, 1, "tcp", "certificates", true},
                    Case{"qwen3_moe", 1, 2, "", "", false, 2}, Case{"qwen3_moe", 3, 2, "", "", false, 2},
                    Case{"qwen3_moe", 2, 4, "", "secret", true, 2}, Case{"deepseek_v3", 2, 2, "", "", false, 2},
                    Case{"step3_text_bf16", 1, 4, "tcp", "", false, 2}, Case{"step3p5", 2, 2, "", "", false, 2},
                    Case{"llama", 1, 4, "", "", false, 4}),
    [](const auto& info) {
      const Case& c = info.param;
      std::string name = format("{}_{}A{}F", c.model, c.attention, c.ffn);
      if (c.width > 1) name += format("_width{}", c.width);
      for (const std::string& word :
           {std::string(c.transports), std::string(c.trust), std::string(c.encrypt ? "sealed" : "")})
        if (!word.empty()) name += "_" + word;
      return name;
    });

TEST(Front, EachWorkerLoadsItsShareAndNoMore) {
  DeploymentRun run(small_deployment("qwen3_moe", 1, 3));
  run.connect();
  const auto checkpoint = Checkpoint::open(run.deployment().model);
  EngineConfig config = small_engine();
  const std::int64_t whole = Engine::start(*checkpoint, config)->weight_bytes();
  const std::int64_t attention = run.front().welcome(0).weight_bytes;
  std::int64_t sum = attention;
  for (std::int32_t rank = 1; rank <= 3; ++rank) {
    const std::int64_t mine = run.front().welcome(rank).weight_bytes;
    EXPECT_GT(mine, 0);
    EXPECT_LT(mine, (whole - attention) / 2);  // three shares: about a third of the experts each
    sum += mine;
  }
  EXPECT_EQ(sum, whole);
}

template <class Condition>
void wait_until(Condition condition) {
  const RealClock clock;
  const Nanoseconds end = clock.now() + 60 * kSecond;
  while (!condition()) {
    ASSERT_LT(clock.now(), end);
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

// A worker of a width group holds its columns of its experts: each of two halves of eight experts of 64, whose dense
// layers are cut in two as well, has as much as the other.
TEST(Front, AWorkerOfAWidthGroupLoadsItsPartOfTheWidthAndNoMore) {
  DeploymentRun run(deployment_with_width("qwen3_moe", 1, 2, 2));
  run.connect();
  const auto checkpoint = Checkpoint::open(run.deployment().model);
  EngineConfig config = small_engine();
  const std::int64_t whole = Engine::start(*checkpoint, config)->weight_bytes();
  const std::int64_t attention = run.front().welcome(0).weight_bytes;
  EXPECT_EQ(run.front().welcome(1).weight_bytes, (whole - attention) / 2);
  EXPECT_EQ(run.front().welcome(2).weight_bytes, (whole - attention) / 2);
}

// Experts of more columns than the recorded ones have, five blocks of 32, in four parts.
TEST(Front, ExpertsInFourPartsHaveTheTokensAndLogitsOfOneProcess) {
  Json config = Json::parse(std::ifstream("tests/goldens/qwen3_moe/config.json"));
  config["moe_intermediate_size"] = 160;
  const TemporaryFolder folder;
  write_model(folder, config, tensors_for(config));
  std::filesystem::copy_file("tests/goldens/qwen3_moe/tokenizer.json", folder.path("tokenizer.json"));
  const std::vector<Request> requests = some_requests();
  EngineConfig local = small_engine();
  local.kv_dtype = DType::kF32;
  const std::vector<Recorded> expected = RecordingEngine(*Checkpoint::open(folder.path()), local).run(requests);
  for (const std::int32_t ffn : {4, 8}) {
    Deployment deployment = deployment_with_width("qwen3_moe", 3, ffn, 4);
    deployment.model = folder.path();
    DeploymentRun run(std::move(deployment));
    run.connect();
    expect_answers(run, requests, expected);
  }
}

// As many FFN workers, which share otherwise.
TEST(Front, AWorkerOfAnotherSplitRefusesAndSaysWhy) {
  DeploymentRun run(deployment_with_width("qwen3_moe", 1, 2, 2));
  run.wait_for_line(1, "ready");
  Deployment other = run.deployment();
  other.split = {.experts = 2, .width = 1};
  const Identity identity = identity_of(other, *Checkpoint::open(other.model));
  EXPECT_THAT(error_of([&] { Front::connect(other, identity, {.patience = 60 * kSecond}); }).message(),
              HasSubstr("layout is 1A1x2F, the other has 1A2F"));
}

// One in FFN processes whose experts cannot be cut ends with the reason.
TEST(Front, AWorkerWhoseExpertsCannotBeCutSaysSo) {
  DeploymentRun run(deployment_with_width("step3_text_fp8", 1, 2, 2));
  for (const std::int32_t rank : {1, 2})
    run.wait_for_line(rank, "experts are 128 wide in blocks of 128, which can be cut into 1 parts, not into 2");
}

// Kills a worker in the middle of answers, starts it again, and expects every stream to go on as if nothing had been.
void expect_survival(std::int32_t victim, bool restart, bool sealed = false, std::int32_t width = 1) {
  const std::vector<Request> requests = some_requests(60);
  const std::vector<Recorded> expected = expected_of("qwen3_moe", requests);
  Deployment deployment = deployment_with_width("qwen3_moe", 2, 2, width);
  const TemporaryFolder folder;
  give_trust(deployment, sealed ? "secret" : "", folder.path());
  deployment.link.encrypt = sealed;
  DeploymentRun run(std::move(deployment));
  run.connect();
  const std::vector<RequestId> ids = run.submit_all(requests);
  run.wait_for_tokens(ids.front(), 5);
  run.kill_and_reap(victim);
  if (restart) run.start(victim);
  run.wait();
  for (std::size_t i = 0; i < ids.size(); ++i) {
    EXPECT_TRUE(run.answer(ids[i]).end.status) << run.answer(ids[i]).end.status.error().message();
    EXPECT_EQ(run.answer(ids[i]).tokens, expected[i].tokens) << i;
  }
  run.wait_for_epoch(2);  // on a busy machine all may have been said before the loss was seen
}

TEST(Front, AnFfnWorkerThatIsKilledAndComesBackChangesNoToken) {
  expect_survival(3, true);
}

class FrontKeptKv : public testing::TestWithParam<const char*> {};

// Prompts of two blocks and more, whose KV the attention worker keeps when they meet again: every kind of cache.
TEST_P(FrontKeptKv, GoesOnWithTheSameTokensAndLogits) {
  std::vector<Request> requests = some_requests(110);  // more than are said before the loss is seen
  for (std::size_t i = 0; i < requests.size(); ++i) {
    requests[i].prompt = random_prompt(130 + 3 * static_cast<std::int64_t>(i), i + 3);
    requests[i].prompt_logits = false;  // else every row is computed
  }
  const std::vector<Recorded> expected = expected_of(GetParam(), requests);
  DeploymentRun run(small_deployment(GetParam(), 1, 1));
  run.connect();
  const std::vector<RequestId> ids = run.submit_all(requests);
  for (const RequestId id : ids) run.wait_for_tokens(id, 2);
  run.kill_and_reap(1);
  run.start(1);
  run.wait_for_epoch(2);
  run.wait();
  const LogitRows rows = run.logits();
  for (std::size_t i = 0; i < ids.size(); ++i) {
    EXPECT_EQ(run.answer(ids[i]).tokens, expected[i].tokens) << i;
    EXPECT_EQ(run.answer(ids[i]).end.cached_tokens, 0);  // its own are not told as cached
    expect_same_rows(expected[i], rows, ids[i]);
  }
  const auto found = [&] { return run.engine().workers().takers()[0]->load().kv.hit_tokens; };
  wait_until([&] { return found() >= 128 * std::ssize(ids); });
}

INSTANTIATE_TEST_SUITE_P(Models, FrontKeptKv,
                         testing::Values("llama", "qwen3", "qwen3_moe", "deepseek_v3", "step3_text_bf16", "step3p5"));

TEST(Front, OneOfAWidthGroupThatIsKilledAndComesBackChangesNoToken) {
  expect_survival(2, true, false, 2);
}

TEST(Front, SealedLinksSurviveTheSame) {
  expect_survival(3, true, true);
}

// Of a deployment in which both FFN workers have a replica, nobody is started again.
void expect_stand_in(std::int32_t width) {
  const std::vector<Request> requests = some_requests(110);
  const std::vector<Recorded> expected = expected_of("qwen3_moe", requests);
  Deployment deployment = deployment_with_width("qwen3_moe", 2, 2, width);
  for (const std::int32_t of : {2, 3})
    deployment.ffn.push_back(
        {.rank = of + 2, .host = "127.0.0.1", .port = free_port(), .devices = {}, .replica_of = of});
  const TemporaryFolder folder;
  give_trust(deployment, "secret", folder.path());
  deployment.link.encrypt = true;
  DeploymentRun run(std::move(deployment));
  run.connect();
  for (std::int32_t rank : {4, 5}) wait_until([&] { return run.front().welcome(rank).process != 0; });
  for (const std::int32_t rank : {4, 5})
    EXPECT_EQ(run.front().welcome(rank).weight_bytes, run.front().welcome(rank - 2).weight_bytes);
  const std::vector<RequestId> ids = run.submit_all(requests);
  run.wait_for_tokens(ids.front(), 5);
  run.kill_and_reap(2);
  run.wait_for_epoch(2);  // else both may be missed at once
  run.kill_and_reap(3);
  run.wait();
  const LogitRows rows = run.logits();
  for (std::size_t i = 0; i < ids.size(); ++i) {
    EXPECT_TRUE(run.answer(ids[i]).end.status) << run.answer(ids[i]).end.status.error().message();
    EXPECT_EQ(run.answer(ids[i]).tokens, expected[i].tokens) << i;
    expect_same_rows(expected[i], rows, ids[i]);
  }
  run.wait_for_epoch(3);
}

TEST(Front, AReplicaStandsInForAnFfnWorkerThatIsKilled) {
  expect_stand_in(1);
}

TEST(Front, AReplicaStandsInForOneOfAWidthGroup) {
  expect_stand_in(2);
}

TEST(Front, AnAttentionWorkerThatIsKilledIsReplacedByTheOthers) {
  expect_survival(0, false);
}

TEST(Front, AnAttentionWorkerComesBack) {
  expect_survival(1, true);
}

TEST(Front, WithoutAnFfnWorkerRequestsEndWithItsNameAndNobodyHangs) {
  Deployment deployment = small_deployment("llama", 2, 2);
  deployment.link.repair_ms_max = 100;
  DeploymentRun run(std::move(deployment));
  run.connect();
  const std::vector<RequestId> ids = run.submit_all(some_requests(150));
  run.wait_for_tokens(ids.front(), 2);
  run.kill_and_reap(2);
  run.wait();
  const std::string name = format("F0 (rank 2, 127.0.0.1:{}) is missing", run.deployment().ffn[0].port);
  std::size_t failed = 0;
  for (const RequestId id : ids) {
    const RequestEvent& end = run.answer(id).end;
    if (end.finish != FinishReason::kError) continue;
    ++failed;
    EXPECT_EQ(end.status.error().code(), ErrorCode::kUnavailable);
    EXPECT_THAT(end.status.error().message(), HasSubstr(name));
  }
  EXPECT_GT(failed, 0u);
  const RequestId later = run.submit(some_requests().front());
  run.wait();
  EXPECT_THAT(run.answer(later).end.status.error().message(), HasSubstr(name));
  // Others go on as soon as it is back.
  run.start(2);
  for (FinishReason finish = FinishReason::kError; finish == FinishReason::kError;) {
    const RequestId again = run.submit(some_requests().front());
    run.wait();
    finish = run.answer(again).end.finish;
  }
}

TEST(Front, AWorkerThatIsStoppedIsFoundBySilenceAndComesBack) {
  const std::vector<Request> requests = some_requests(60);
  const std::vector<Recorded> expected = expected_of("llama", requests);
  Deployment deployment = small_deployment("llama", 1, 2);
  deployment.link.lost_after_ms = 1000;
  DeploymentRun run(std::move(deployment));
  run.connect();
  const std::vector<RequestId> ids = run.submit_all(requests);
  run.wait_for_tokens(ids.front(), 3);
  run.signal(2, SIGSTOP);
  while (run.front().epoch() == 1) {  // until it is missed and has been let on
    usleep(1'500'000);
    run.signal(2, SIGCONT);
    if (run.answer(ids.back()).end.finish != FinishReason::kNone) break;
    usleep(200'000);
  }
  run.wait();
  for (std::size_t i = 0; i < ids.size(); ++i) EXPECT_EQ(run.answer(ids[i]).tokens, expected[i].tokens) << i;
  EXPECT_GE(run.front().epoch(), 2u);
}

// Kills the worker and starts it again as one whose endpoints are stuck while they are made.
void restart_stuck(DeploymentRun& run, std::int32_t rank, std::int32_t limit_ms) {
  run.kill_and_reap(rank);
  run.limit_endpoints(rank, limit_ms);
  run.let_endpoints_stick(rank, true);
  run.start(rank);
}

TEST(Front, AnAttentionWorkerWithoutEndpointIsNotWaitedForAndComesBackWithOne) {
  const std::vector<Request> requests = some_requests();
  const std::vector<Recorded> expected = expected_of("qwen3_moe", requests);
  Deployment deployment = small_deployment("qwen3_moe", 2, 1);
  deployment.link.lost_after_ms = 2000;
  DeploymentRun run(std::move(deployment));
  run.connect();
  const std::int64_t process = run.front().welcome(1).process;
  restart_stuck(run, 1, 600'000);
  wait_until([&] { return run.front().welcome(1).process != process; });  // all are asked to meet again
  const std::vector<RequestId> ids = run.submit_all(requests);
  run.wait();
  for (std::size_t i = 0; i < ids.size(); ++i) EXPECT_EQ(run.answer(ids[i]).tokens, expected[i].tokens) << i;
  EXPECT_TRUE(run.engine().workers().takers()[1]->available()) << "it has been lost, and was only slow";
  const std::int64_t met = run.front().formation()->formations;
  run.let_endpoints_stick(1, false);
  wait_until([&] { return run.front().formation()->formations > met; });
}

class FrontStuckWorker : public testing::TestWithParam<std::int32_t> {};

TEST_P(FrontStuckWorker, EndsItselfAndTakesPartWhenItIsStartedAgain) {
  const std::vector<Request> requests = some_requests();
  const std::vector<Recorded> expected = expected_of("qwen3_moe", requests);
  DeploymentRun run(small_deployment("qwen3_moe", 2, 1));
  run.connect();
  restart_stuck(run, GetParam(), 50);
  const std::vector<RequestId> ids = run.submit_all(requests);
  run.wait_for_line(GetParam(), "the endpoint is not made after 50 ms");
  run.wait_for_line(GetParam(), "status 75");
  run.let_endpoints_stick(GetParam(), false);
  run.limit_endpoints(GetParam(), 60'000);
  run.start(GetParam());
  run.wait();
  for (std::size_t i = 0; i < ids.size(); ++i) EXPECT_EQ(run.answer(ids[i]).tokens, expected[i].tokens) << i;
}

INSTANTIATE_TEST_SUITE_P(OfEachKind, FrontStuckWorker, testing::Values(1, 2));

TEST(Front, WorkersOutliveTheFrontAndServeTheNext) {
  DeploymentRun run(small_deployment("llama", 1, 1));
  run.connect();
  const RequestId first = run.submit(some_requests(200).front());
  run.wait_for_tokens(first, 1);
  run.disconnect();
  run.wait();
  EXPECT_EQ(run.answer(first).end.finish, FinishReason::kCancelled);
  run.connect();
  const RequestId second = run.submit(some_requests().front());
  run.wait();
  EXPECT_EQ(run.answer(second).tokens, expected_of("llama", some_requests()).front().tokens);
}

TEST(Front, ACancelledRequestEnds) {
  DeploymentRun run(small_deployment("llama", 1, 1));
  run.connect();
  const RequestId id = run.submit(some_requests(200).front());
  run.wait_for_tokens(id, 2);
  run.engine().cancel(id);
  run.wait();
  EXPECT_EQ(run.answer(id).end.finish, FinishReason::kCancelled);
}

TEST(Front, RefusesWhatCannotBeSentOrRun) {
  DeploymentRun run(small_deployment("llama", 1, 1));
  run.connect();
  Request pictures = some_requests().front();
  pictures.embedded.push_back({0, 1, 0, nullptr});
  const RequestId id = run.submit(pictures);
  run.wait();
  EXPECT_THAT(run.answer(id).end.status.error().message(), HasSubstr("from position 0 on are no whole rows"));
  Request hot = some_requests().front();
  hot.sampling.temperature = 1000;
  const RequestId other = run.submit(hot);
  run.wait();
  EXPECT_THAT(run.answer(other).end.status.error().message(), HasSubstr("temperature is 1000"));
}

TEST(Front, AnotherDeploymentIsRefusedWithTheReason) {
  DeploymentRun run(small_deployment("llama", 1, 1));
  const auto refusal = [&](auto change) {
    Identity other = run.identity();
    change(other);
    return error_of([&] { Front::connect(run.deployment(), other, {}); }).message();
  };
  EXPECT_THAT(refusal([](Identity& i) { i.model ^= 1; }), HasSubstr("the model is another"));
  EXPECT_THAT(refusal([](Identity& i) { ++i.version; }),
              HasSubstr("version of the control protocol is 4, the other has 5"));
  EXPECT_THAT(refusal([](Identity& i) { i.numbers = "kv bf16"; }), HasSubstr("types of numbers"));
  EXPECT_THAT(refusal([](Identity& i) { i.layout = "2A1F"; }), HasSubstr("layout is 1A1F, the other has 2A1F"));
  EXPECT_THAT(refusal([](Identity& i) { i.links = "sealed"; }),
              HasSubstr("what passes between workers is open, the other has sealed"));
  EXPECT_THAT(refusal([](Identity& i) { ++i.settings; }), HasSubstr("the deployment files differ"));
  run.connect();  // and none of that keeps the right one out
}

TEST(Front, SaysWhoIsMissing) {
  Deployment deployment = small_deployment("llama", 1, 1);
  const Identity identity = identity_of(deployment, *Checkpoint::open(deployment.model));
  const Error error = error_of([&] { Front::connect(deployment, identity, {.patience = 200'000'000}); });
  EXPECT_EQ(error.code(), ErrorCode::kUnavailable);
  EXPECT_THAT(error.message(), HasSubstr("A0 (rank 0, 127.0.0.1:"));
  EXPECT_THAT(error.message(), HasSubstr("Connection refused"));
}

}  // namespace
}  // namespace tandem
