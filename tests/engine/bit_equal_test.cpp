// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The first invariant of the design: the same model, prompt and seed give the same logits and tokens, bit for bit,
// however the work was arranged. Each test compares one arrangement with requests that ran alone, in the local layout.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cctype>
#include <tuple>

#include "base/format.h"
#include "ops/cuda/device.h"
#include "ops/forwarding.h"
#include "tests/base/error_of.h"
#include "tests/engine/lasting_operators.h"
#include "tests/engine/late_backend.h"
#include "tests/engine/recording_engine.h"
#include "transport/faulty/faulty.h"

namespace tandem {
namespace {

// Prompts of one token, of a block and around it; greedy, and drawn with different filters.
std::vector<Request> some_requests() {
  std::vector<Request> requests;
  for (const std::int64_t tokens : {1, 9, 64, 70, 33}) {
    Request request;
    request.prompt = random_prompt(tokens, 100 + static_cast<std::uint64_t>(tokens));
    request.new_tokens_max = 8;
    request.prompt_logits = true;
    requests.push_back(request);
  }
  requests[1].sampling = {.temperature = 0.8f, .seed = 7};
  requests[2].sampling = {.temperature = 1.2f, .top_k = 50, .top_p = 0.9f, .seed = 8};
  requests[4].sampling = {.temperature = 1.0f, .min_p = 0.02f, .repetition_penalty = 1.1f, .seed = 9};
  return requests;
}

class BitEqual : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override { checkpoint_ = Checkpoint::open(std::string("tests/goldens/") + GetParam()); }

  // What each request gives when nobody else is there.
  std::vector<Recorded> alone(const std::vector<Request>& requests) {
    std::vector<Recorded> results;
    RecordingEngine engine(*checkpoint_, small_engine());
    for (Request request : requests) {
      request.prompt_logits = true;
      results.push_back(engine.run({request}).front());
      EXPECT_EQ(std::ssize(results.back().logits), std::ssize(request.prompt) + request.new_tokens_max - 1);
    }
    return results;
  }

  void expect_same(const std::vector<Recorded>& expected, const std::vector<Recorded>& found) {
    ASSERT_EQ(expected.size(), found.size());
    for (std::size_t i = 0; i < expected.size(); ++i) {
      SCOPED_TRACE(format("request {}", i));
      expect_same_bits(expected[i], found[i]);
    }
  }

  std::unique_ptr<Checkpoint> checkpoint_;
};

std::string name_of(const testing::TestParamInfo<const char*>& info) {
  std::string name = info.param;
  std::replace_if(name.begin(), name.end(), [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); }, '_');
  return name;
}
INSTANTIATE_TEST_SUITE_P(Models, BitEqual,
                         testing::Values("step3_text_bf16", "step3_text_fp8", "deepseek_v3", "step3p5", "qwen3_moe",
                                         "llama", "llama_gguf/llama-q4_1.gguf"),
                         name_of);

TEST_P(BitEqual, InEveryLayoutWithAnyNumberOfMicroBatches) {
  const std::vector<Request> requests = some_requests();
  const std::vector<Recorded> expected = alone(requests);
  for (const char* layout : {"local", "1A1F", "2A1F", "1A2F", "2A2F", "1A3F", "1A4F", "3A2F"}) {
    for (std::int32_t micro_batches = 1; micro_batches <= kMicroBatchesMax; ++micro_batches) {
      SCOPED_TRACE(format("{}, {} micro-batches", layout, micro_batches));
      expect_same(expected, RecordingEngine(*checkpoint_, small_engine(layout, micro_batches)).run(requests));
      if (HasFailure()) return;
    }
  }
}

// The recorded experts are two or three blocks wide; those in FP8 are one block of 128, which cannot be cut.
TEST_P(BitEqual, WithExpertsCutByWidth) {
  const std::vector<Request> requests = some_requests();
  const std::vector<Recorded> expected = alone(requests);
  const bool dense = read_config(*checkpoint_).experts == 0;
  for (const char* layout : {"1A1x2F", "2A1x2F", "3A1x2F", "1A2x2F", "2A2x2F", "3A2x2F", "1A1x4F", "2A1x4F"}) {
    SCOPED_TRACE(layout);
    if (parse_layout(layout).ffn_width == 4 && !dense) continue;
    if (GetParam() == std::string_view("step3_text_fp8")) {
      EXPECT_EQ(error_of([&] { RecordingEngine(*checkpoint_, small_engine(layout)); }).message(),
                "model.layers.1.moe.down_proj.weight: experts are 128 wide in blocks of 128, which can be cut into 1 "
                "parts, not into 2 (--layout, split.width)");
      continue;
    }
    expect_same(expected, RecordingEngine(*checkpoint_, small_engine(layout, 2)).run(requests));
    if (HasFailure()) return;
  }
}

// Sums on a GPU have an order of their own, which is that of its local layout.
TEST_P(BitEqual, WithExpertsCutByWidthOnAGpu) {
  if (const std::string reason = cuda::why_unusable(cuda::look_at_device()); !reason.empty()) GTEST_SKIP() << reason;
  const std::vector<Request> requests = some_requests();
  EngineConfig config = small_engine();
  config.backend = "cuda";
  const std::vector<Recorded> expected = RecordingEngine(*checkpoint_, config).run(requests);
  for (const char* layout : {"1A1F", "1A1x2F", "2A2x2F"}) {
    SCOPED_TRACE(layout);
    if (GetParam() == std::string_view("step3_text_fp8") && parse_layout(layout).ffn_width > 1) continue;
    EngineConfig apart = small_engine(layout, 2);
    apart.backend = "cuda";
    expect_same(expected, RecordingEngine(*checkpoint_, apart).run(requests));
    if (HasFailure()) return;
  }
}

TEST_P(BitEqual, OnTwoGpus) {
  if (const std::string reason = cuda::why_unusable(cuda::look_at_device()); !reason.empty()) GTEST_SKIP() << reason;
  if (cuda::look_at_device().devices < 2) GTEST_SKIP() << "there is one GPU";
  const std::vector<Request> requests = some_requests();
  EngineConfig config = small_engine();
  config.backend = "cuda";
  const std::vector<Recorded> expected = RecordingEngine(*checkpoint_, config).run(requests);
  config.attention_gpus = {1};
  expect_same(expected, RecordingEngine(*checkpoint_, config).run(requests));
  using Gpus = std::vector<std::int32_t>;
  for (const auto& [layout, attention, ffn] : {std::tuple{"1A1F", Gpus{0}, Gpus{1}},
                                               {"1A1F", Gpus{1}, Gpus{0}},
                                               {"2A2F", Gpus{0}, Gpus{1}},
                                               {"2A2F", Gpus{0, 1}, Gpus{1, 0}},
                                               {"1A1x2F", Gpus{0}, Gpus{0, 1}}}) {
    SCOPED_TRACE(format("{}, FFN workers on {}", layout, join(ffn, ", ")));
    if (GetParam() == std::string_view("step3_text_fp8") && parse_layout(layout).ffn_width > 1) continue;
    EngineConfig apart = small_engine(layout, 2);
    apart.backend = "cuda";
    apart.attention_gpus = attention;
    apart.ffn_gpus = ffn;
    expect_same(expected, RecordingEngine(*checkpoint_, apart).run(requests));
    if (HasFailure()) return;
  }
}

// Does in software what a GPU does with a recorded step: by a key it has seen it runs the operators that it was given
// then, and asks nobody.
class RememberingBackend final : public ForwardingBackend {
 public:
  RememberingBackend(std::unique_ptr<Backend> inner, std::atomic<int>& replays)
      : ForwardingBackend(std::move(inner)), replays_(replays) {}

  void run(const Operator& op) override {
    if (recording_) recording_->push_back(lasting_.keep(op));
    ForwardingBackend::run(op);
  }
  void replay(std::span<const std::int64_t> key, const std::function<void()>& record) override {
    const auto [step, is_new] = steps_.try_emplace(std::vector(key.begin(), key.end()));
    if (is_new) {
      recording_ = &step->second;
      record();
      recording_ = nullptr;
      return;
    }
    for (const Operator& op : step->second) ForwardingBackend::run(op);
    ++replays_;
  }

 private:
  std::atomic<int>& replays_;
  std::map<std::vector<std::int64_t>, std::vector<Operator>> steps_;
  std::vector<Operator>* recording_ = nullptr;
  LastingOperators lasting_;
};

TEST_P(BitEqual, WhenStepsAreReplayed) {
  std::vector<Request> requests = some_requests();
  for (Request& request : requests) request.new_tokens_max = 80;  // over the borders of blocks
  std::vector<std::vector<std::int32_t>> expected;
  for (const Recorded& one : alone(requests)) expected.push_back(one.tokens);
  for (Request& request : requests) request.prompt_logits = false;
  for (const std::int32_t micro_batches : {1, 3}) {
    SCOPED_TRACE(format("{} micro-batches", micro_batches));
    std::atomic<int> replays{0};
    EngineConfig config = small_engine("local", micro_batches);
    config.wrap_backend = [&](std::unique_ptr<Backend> inner) {
      return std::make_unique<RememberingBackend>(std::move(inner), replays);
    };
    const std::vector<Recorded> found = RecordingEngine(*checkpoint_, config, false).run(requests);
    for (std::size_t i = 0; i < requests.size(); ++i) EXPECT_EQ(found[i].tokens, expected[i]) << "request " << i;
    EXPECT_GT(replays, 20);
  }
}

// A GPU replays steps where nobody looks, and runs them operator by operator where somebody does.
TEST_P(BitEqual, WhenAGpuReplaysSteps) {
  if (const std::string reason = cuda::why_unusable(cuda::look_at_device()); !reason.empty()) GTEST_SKIP() << reason;
  std::vector<Request> requests = some_requests();
  for (Request& request : requests) {
    request.new_tokens_max = 80;
    request.prompt_logits = false;
  }
  EngineConfig config = small_engine();
  config.backend = "cuda";
  for (const DType kv : {DType::kBF16, DType::kF8E4M3}) {
    config.kv_dtype = kv;
    config.micro_batches = 1;
    const std::vector<Recorded> expected = RecordingEngine(*checkpoint_, config).run(requests);
    for (const std::int32_t micro_batches : {1, 3}) {
      config.micro_batches = micro_batches;
      for (const bool ahead : {false, true}) {
        config.run_ahead = ahead;
        const std::vector<Recorded> found = RecordingEngine(*checkpoint_, config, false).run(requests);
        for (std::size_t i = 0; i < requests.size(); ++i)
          EXPECT_EQ(found[i].tokens, expected[i].tokens) << name(kv) << ", request " << i << ", ahead " << ahead;
      }
    }
  }
}

TEST_P(BitEqual, WithAnyNumberOfThreads) {
  const std::vector<Request> requests = some_requests();
  const std::vector<Recorded> expected = alone(requests);
  for (const std::int32_t threads : {2, 3, 5}) {
    SCOPED_TRACE(format("{} threads", threads));
    EngineConfig config = small_engine();
    config.threads = threads;
    expect_same(expected, RecordingEngine(*checkpoint_, config).run(requests));
  }
}

TEST_P(BitEqual, InAnyCompany) {
  std::vector<Request> requests = some_requests();
  requests.resize(3);
  const std::vector<Recorded> expected = alone(requests);
  RecordingEngine engine(*checkpoint_, small_engine("1A1F", 2));
  std::vector<RequestId> neighbours;
  for (std::uint64_t i = 0; i < 7; ++i) {
    Request neighbour;
    neighbour.prompt = random_prompt(11 + 23 * static_cast<std::int64_t>(i), i);
    neighbour.new_tokens_max = 30;
    neighbour.sampling = {.temperature = 1, .seed = i};
    neighbours.push_back(engine.submit(neighbour));
  }
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const RequestId id = engine.submit(requests[i]);
    engine.wait_for_tokens(id, 8);
    SCOPED_TRACE(format("request {}", i));
    expect_same_bits(expected[i], engine.result(id));
  }
  engine.wait();
  for (const RequestId id : neighbours) EXPECT_EQ(engine.result(id).end.finish, FinishReason::kLength);
}

TEST_P(BitEqual, InChunksOfAnySize) {
  const std::vector<Request> requests = some_requests();
  const std::vector<Recorded> expected = alone(requests);
  for (const std::int64_t chunk : {1, 7, 64, 256}) {
    SCOPED_TRACE(format("chunks of {}", chunk));
    EngineConfig config = small_engine("1A1F", 2);
    config.rows_per_step_max = std::max<std::int64_t>(chunk, 8);
    config.prefill_chunk = chunk;
    expect_same(expected, RecordingEngine(*checkpoint_, config).run(requests));
  }
}

TEST_P(BitEqual, WithAndWithoutAPrefixHit) {
  Request request;
  request.prompt = random_prompt(150, 1);
  request.new_tokens_max = 8;
  const Recorded expected = alone({request}).front();
  Request longer = request;  // shares two blocks with it
  longer.prompt.resize(130);
  longer.prompt.insert(longer.prompt.end(), {3, 1, 4, 1, 5});
  const Recorded longer_expected = alone({longer}).front();

  RecordingEngine engine(*checkpoint_, small_engine("2A2F", 2));
  for (const std::int64_t cached : {0, 128}) {  // an idle engine gives a request to its first worker
    const Recorded found = engine.run({request}).front();
    EXPECT_EQ(found.end.cached_tokens, cached);
    expect_same_bits(expected, found);
  }
  const Recorded found = engine.run({longer}).front();
  EXPECT_EQ(found.end.cached_tokens, 128);
  expect_same_bits(longer_expected, found);

  EngineConfig without = small_engine("2A2F", 2);
  without.prefix_cache = false;
  RecordingEngine cold(*checkpoint_, without);
  for (int round = 0; round < 2; ++round) {
    const Recorded again = cold.run({request}).front();
    EXPECT_EQ(again.end.cached_tokens, 0);
    expect_same_bits(expected, again);
  }
}

TEST_P(BitEqual, WhenTheCacheIsTooSmallForAll) {
  std::vector<Request> requests;
  for (std::uint64_t i = 0; i < 4; ++i) {
    Request request;
    request.prompt = random_prompt(40 + static_cast<std::int64_t>(i), i);
    request.new_tokens_max = 100;  // three blocks in the end; two requests are let in with the promise of two each
    request.prompt_logits = i % 2 == 0;
    if (i == 3) request.sampling = {.temperature = 0.7f, .seed = 3};
    requests.push_back(request);
  }
  const std::vector<Recorded> expected = alone(requests);
  for (const char* layout : {"local", "1A2F"}) {
    SCOPED_TRACE(layout);
    EngineConfig config = small_engine(layout, 2);
    config.kv_tokens = 5 * kBlockTokens;
    config.context_tokens_max = 192;
    RecordingEngine engine(*checkpoint_, config);
    expect_same(expected, engine.run(requests));
    engine.check_integrity();
    engine.engine().stop();
    EXPECT_GT(engine.engine().attention_workers()[0]->load().preemptions, 0);
  }
}

TEST_P(BitEqual, AfterPreemptionAtAnyMoment) {
  Request request;
  request.prompt = random_prompt(75, 4);
  request.new_tokens_max = 150;
  request.prompt_logits = true;
  request.sampling = {.temperature = 0.9f, .seed = 5};
  const Recorded expected = alone({request}).front();
  RecordingEngine engine(*checkpoint_, small_engine("2A1F", 3));
  const RequestId id = engine.submit(request);
  int preemptions = 0;
  for (std::size_t tokens = 1; tokens < 120; tokens += 20) {
    engine.wait_for_tokens(id, tokens);
    for (AttentionWorker* worker : engine.engine().attention_workers())
      worker->between_steps([&] { preemptions += worker->scheduler().preempt_youngest(); });
  }
  engine.wait();
  EXPECT_GT(preemptions, 0);
  const Recorded found = engine.result(id);
  EXPECT_EQ(found.end.preemptions, preemptions);
  expect_same_bits(expected, found);
}

TEST_P(BitEqual, FromPagesThatAnotherLayoutComputed) {
  Request request;
  request.prompt = random_prompt(140, 6);
  request.new_tokens_max = 8;
  const Recorded expected = alone({request}).front();
  Pages pages;
  {
    RecordingEngine source(*checkpoint_, small_engine("1A2F", 3));
    source.run({request});
    AttentionWorker& worker = *source.engine().attention_workers().front();
    ASSERT_TRUE(worker.between_steps([&] { pages = worker.export_pages(0, request.prompt); }));
  }
  ASSERT_EQ(pages.size(), 2u);
  for (const char* layout : {"local", "2A1F"}) {
    SCOPED_TRACE(layout);
    RecordingEngine target(*checkpoint_, small_engine(layout, 2));
    for (AttentionWorker* worker : target.engine().attention_workers())
      ASSERT_TRUE(worker->between_steps([&] { EXPECT_TRUE(worker->import_pages(0, request.prompt, pages)); }));
    const Recorded found = target.run({request}).front();
    EXPECT_EQ(found.end.cached_tokens, 128);
    expect_same_bits(expected, found);
    target.check_integrity();
  }
}

TEST_P(BitEqual, OverATransportThatLosesDelaysAndRepeats) {
  const std::vector<Request> requests = some_requests();
  const std::vector<Recorded> expected = alone(requests);
  const RealClock clock;
  for (const char* layout : {"1A1F", "2A2F", "2A1x2F"}) {
    SCOPED_TRACE(layout);
    if (GetParam() == std::string_view("step3_text_fp8") && parse_layout(layout).ffn_width > 1) continue;
    EngineConfig config = small_engine(layout, 3);
    config.resend_after_ms = 20;
    config.resends_max = 100;
    std::vector<FaultyTransport*> transports;
    config.wrap_transport = [&](std::unique_ptr<Transport> inner, PeerRank rank) {
      FaultPolicy policy{.drop = 0.03, .delay = 0.1, .duplicate = 0.1, .delay_by = 2'000'000};
      auto faulty = std::make_unique<FaultyTransport>(std::move(inner), policy, 40 + rank, clock);
      transports.push_back(faulty.get());
      return faulty;
    };
    RecordingEngine engine(*checkpoint_, config);
    expect_same(expected, engine.run(requests));
    engine.check_integrity();
    engine.engine().stop();
    FaultCounts total;
    for (const FaultyTransport* transport : transports) {
      total.dropped += transport->counts().dropped;
      total.delayed += transport->counts().delayed;
      total.duplicated += transport->counts().duplicated;
    }
    std::int64_t resends = 0;
    for (const AttentionWorker* worker : engine.engine().attention_workers()) resends += worker->stats().resends;
    EXPECT_GT(total.dropped, 0u);
    EXPECT_GT(total.delayed, 0u);
    EXPECT_GT(total.duplicated, 0u);
    EXPECT_GT(resends, 0);
  }
}

// Rows that no host sees, in copies that are made when somebody waits for them; then with some that are lost.
TEST_P(BitEqual, WithRowsFromDeviceToDevice) {
  const std::vector<Request> requests = some_requests();
  const std::vector<Recorded> expected = alone(requests);
  const RealClock clock;
  for (const char* layout : {"1A1F", "2A1F", "1A3F", "2A2F", "3A2F", "1A1x2F", "2A2x2F"}) {
    if (GetParam() == std::string_view("step3_text_fp8") && parse_layout(layout).ffn_width > 1) continue;
    for (const double drop : {0.0, 0.03}) {
      SCOPED_TRACE(format("{}, {} of messages dropped", layout, drop));
      EngineConfig config = small_engine(layout, drop > 0 ? 3 : 2);
      use_late_backends(config);
      config.resend_after_ms = drop > 0 ? 20 : 10'000;
      config.resends_max = 100;
      std::vector<FaultyTransport*> transports;
      config.wrap_transport = [&](std::unique_ptr<Transport> inner, PeerRank rank) {
        EXPECT_TRUE(inner->capabilities().device_rows);
        auto faulty = std::make_unique<FaultyTransport>(std::move(inner), FaultPolicy{.drop = drop}, 50 + rank, clock);
        transports.push_back(faulty.get());
        return faulty;
      };
      RecordingEngine engine(*checkpoint_, config);
      expect_same(expected, engine.run(requests));
      engine.check_integrity();
      engine.engine().stop();
      std::uint64_t dropped = 0;
      for (const FaultyTransport* transport : transports) dropped += transport->counts().dropped;
      EXPECT_EQ(dropped > 0, drop > 0);
      if (HasFailure()) return;
    }
  }
}

// Allows about a third of the vocabulary, and another third after every other answer.
class HashConstraint final : public TokenConstraint {
 public:
  Status allowed(std::span<const std::int32_t> after, std::span<std::uint32_t> words) override {
    std::uint32_t hash = hash_;
    for (const std::int32_t token : after) hash = fold(hash, token);
    std::ranges::fill(words, 0);
    for (std::size_t i = 0; i < 512; ++i)
      if (may(hash, static_cast<std::int32_t>(i))) words[i / 32] |= 1U << (i % 32);
    return Status::ok();
  }
  Status commit(std::int32_t token) override {
    if (!may(hash_, token)) return {ErrorCode::kInternal, "a token that was not allowed"};
    hash_ = fold(hash_, token);
    return Status::ok();
  }
  bool complete() const override { return false; }

 private:
  static std::uint32_t fold(std::uint32_t hash, std::int32_t token) {
    return hash * 31 + static_cast<std::uint32_t>(token);
  }
  static bool may(std::uint32_t hash, std::int32_t token) { return fold(hash, token) % 3 == 0; }

  std::uint32_t hash_ = 7;
};

// The same with answers that are constrained: a constraint's state is of the answer and of nothing else.
TEST(BitEqualConstrained, InEveryLayoutWithPrefixHitsAfterPreemptionAndWithDrafts) {
  const auto checkpoint = Checkpoint::open("tests/goldens/step3_text_bf16");
  const auto constrained = [](std::int32_t new_tokens) {
    std::vector<Request> requests = some_requests();
    for (Request& request : requests) {
      request.new_tokens_max = new_tokens;
      request.prompt_logits = false;
      request.constraint = std::make_shared<HashConstraint>();
    }
    requests[0].constraint = nullptr;  // one that is free among them
    return requests;
  };
  std::vector<Recorded> expected;
  {
    RecordingEngine engine(*checkpoint, small_engine());
    for (Request request : constrained(30)) {
      request.prompt_logits = true;
      expected.push_back(engine.run({request}).front());
    }
  }
  const auto expect_same = [&](const std::vector<Recorded>& found) {
    for (std::size_t i = 0; i < expected.size(); ++i) {
      SCOPED_TRACE(format("request {}", i));
      expect_same_bits(expected[i], found[i]);
    }
  };
  EXPECT_NE(expected[3].tokens, RecordingEngine(*checkpoint, small_engine()).run(some_requests())[3].tokens);
  for (const char* layout : {"local", "1A1F", "2A2F", "1A3F"}) {
    SCOPED_TRACE(layout);
    RecordingEngine engine(*checkpoint, small_engine(layout, 2));
    expect_same(engine.run(constrained(30)));
    const std::vector<Recorded> again = engine.run(constrained(30));  // on cached prefixes
    expect_same(again);
    if (std::string_view(layout) == "local") {
      EXPECT_EQ(again[3].end.cached_tokens, 64);
    }
    engine.check_integrity();
  }
  RecordingEngine engine(*checkpoint, small_engine("2A1F", 3));
  for (AttentionWorker* worker : engine.engine().attention_workers())
    worker->between_steps([&] {
      worker->scheduler().set_drafter([&](std::span<const std::int32_t> tokens) {  // right, then wrong
        std::vector<std::int32_t> drafts;
        for (const Recorded& known : expected)
          for (std::size_t i = 0; i + 1 < known.tokens.size() && drafts.empty(); ++i)
            if (known.tokens[i] == tokens.back()) drafts = {known.tokens[i + 1], 5};
        return drafts;
      });
    });
  std::vector<RequestId> ids;
  for (Request& request : constrained(30)) ids.push_back(engine.submit(std::move(request)));
  int preemptions = 0;
  for (std::size_t tokens = 3; tokens < 30; tokens += 9) {
    engine.wait_for_tokens(ids[3], tokens);
    for (AttentionWorker* worker : engine.engine().attention_workers())
      worker->between_steps([&] { preemptions += worker->scheduler().preempt_youngest(); });
  }
  engine.wait();
  EXPECT_GT(preemptions, 0);
  for (std::size_t i = 0; i < ids.size(); ++i)  // rows of drafts that were wrong have logits of their own
    EXPECT_EQ(engine.result(ids[i]).tokens, expected[i].tokens) << "request " << i;
}

// A constraint under which nothing may come, or that fails, ends its own request.
TEST(BitEqualConstrained, WhatMayNotGoOnEndsAloneAndSaysWhy) {
  class Broken final : public TokenConstraint {
   public:
    Status allowed(std::span<const std::int32_t>, std::span<std::uint32_t>) override {
      return {ErrorCode::kInvalidData, "out of steps"};
    }
    Status commit(std::int32_t) override { return Status::ok(); }
    bool complete() const override { return false; }
  };
  const auto checkpoint = Checkpoint::open("tests/goldens/step3_text_bf16");
  std::vector<Request> requests = some_requests();
  const std::vector<Recorded> expected = RecordingEngine(*checkpoint, small_engine()).run(requests);
  requests[1].constraint = std::make_shared<Broken>();
  RecordingEngine engine(*checkpoint, small_engine("1A1F", 2));
  for (const bool observed : {true, false}) {  // rows are drawn one by one, and together
    for (Request& request : requests) request.prompt_logits = observed;
    const std::vector<Recorded> found = engine.run(requests);
    EXPECT_EQ(found[1].end.finish, FinishReason::kError);
    EXPECT_EQ(found[1].end.status.error().message(), "out of steps");
    EXPECT_TRUE(found[1].tokens.empty());
    expect_same_bits(expected[0], found[0]);
    expect_same_bits(expected[2], found[2]);
  }
}

// Rounded to FP8 the same numbers cross that the local layout consumes.
TEST(BitEqualStep3, WithFp8Activations) {
  const auto checkpoint = Checkpoint::open("tests/goldens/step3_text_fp8");
  const std::vector<Request> requests = some_requests();
  EngineConfig config = small_engine();
  const std::vector<Recorded> unrounded = RecordingEngine(*checkpoint, config).run(requests);
  config.activations = Activations::kFp8;
  const std::vector<Recorded> expected = RecordingEngine(*checkpoint, config).run(requests);
  EXPECT_NE(unrounded[0].logits.at(0), expected[0].logits.at(0));
  for (const char* layout : {"1A1F", "2A1F", "1A3F", "2A2F"}) {
    SCOPED_TRACE(layout);
    config = small_engine(layout, 3);
    config.activations = Activations::kFp8;
    config.prefill_chunk = 17;
    const std::vector<Recorded> found = RecordingEngine(*checkpoint, config).run(requests);
    for (std::size_t i = 0; i < requests.size(); ++i) expect_same_bits(expected[i], found[i]);
  }
}

// A GPU's memory is not the host's: what crosses is copied there and back.
class FarBackend final : public ForwardingBackend {
 public:
  using ForwardingBackend::ForwardingBackend;
  bool host_memory() const override { return false; }
};

TEST(BitEqualStep3, WithMemoryThatIsNotTheHosts) {
  const auto checkpoint = Checkpoint::open("tests/goldens/step3_text_fp8");
  const std::vector<Request> requests = some_requests();
  for (const Activations activations : {Activations::kF32, Activations::kFp8}) {
    EngineConfig config = small_engine();
    config.activations = activations;
    const std::vector<Recorded> expected = RecordingEngine(*checkpoint, config).run(requests);
    for (const char* layout : {"local", "1A1F", "3A2F"}) {
      for (const bool device_rows : {false, true}) {
        SCOPED_TRACE(format("{}, activations in {}, rows to devices: {}", layout, name(activations), device_rows));
        config = small_engine(layout, layout[0] == 'l' ? 1 : 2);
        config.activations = activations;
        config.wrap_backend = [](std::unique_ptr<Backend> inner) {
          return std::make_unique<FarBackend>(std::move(inner));
        };
        if (device_rows) use_late_backends(config);
        const std::vector<Recorded> found = RecordingEngine(*checkpoint, config).run(requests);
        for (std::size_t i = 0; i < requests.size(); ++i) expect_same_bits(expected[i], found[i]);
      }
    }
  }
}

// An FFN worker that has all experts computes what the local layout does.
TEST(BitEqualStep3, WithFp8ActivationsOnAGpu) {
  if (const std::string reason = cuda::why_unusable(cuda::look_at_device()); !reason.empty()) GTEST_SKIP() << reason;
  const auto checkpoint = Checkpoint::open("tests/goldens/step3_text_fp8");
  const std::vector<Request> requests = some_requests();
  std::vector<Recorded> expected;
  for (const char* layout : {"local", "1A1F", "2A1F"}) {
    SCOPED_TRACE(layout);
    EngineConfig config = small_engine(layout, layout[0] == 'l' ? 1 : 3);
    config.backend = "cuda";
    config.activations = Activations::kFp8;
    const std::vector<Recorded> found = RecordingEngine(*checkpoint, config).run(requests);
    if (expected.empty()) expected = found;
    for (std::size_t i = 0; i < requests.size(); ++i) expect_same_bits(expected[i], found[i]);
  }
}

// More FFN workers than there are slices of the shared width, or experts: the ninth has nothing to do.
TEST(BitEqualStep3, WithFfnWorkersThatHoldNoSlice) {
  const auto checkpoint = Checkpoint::open("tests/goldens/step3_text_bf16");
  const std::vector<Request> requests = some_requests();
  const std::vector<Recorded> expected = RecordingEngine(*checkpoint, small_engine()).run(requests);
  const std::vector<Recorded> found = RecordingEngine(*checkpoint, small_engine("1A9F", 2)).run(requests);
  for (std::size_t i = 0; i < requests.size(); ++i) expect_same_bits(expected[i], found[i]);
}

}  // namespace
}  // namespace tandem
