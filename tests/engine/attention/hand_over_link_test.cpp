// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What happens when hand-overs are damaged, do not arrive, or a worker is gone: as the engine's contract has it, seen
// from the requests. That losses within the limit change nothing is in bit_equal_test.cpp.
#include "engine/attention/hand_over_link.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>

#include "tests/engine/late_backend.h"
#include "tests/engine/recording_engine.h"
#include "transport/faulty/faulty.h"

namespace tandem {
namespace {

FrameHeader header_of(std::span<const std::byte> message) {
  FrameHeader header;
  std::memcpy(&header, message.data(), sizeof header);
  return header;
}

class LossyEngine : public testing::Test {
 protected:
  // An engine whose endpoint rank has a policy.
  void start(EngineConfig config, PeerRank rank, const FaultPolicy& policy) {
    config.wrap_transport = [=, this](std::unique_ptr<Transport> inner, PeerRank at) -> std::unique_ptr<Transport> {
      if (at != rank) return inner;
      auto faulty = std::make_unique<FaultyTransport>(std::move(inner), policy, 5, clock_);
      faulty_ = faulty.get();
      return faulty;
    };
    engine_ = std::make_unique<RecordingEngine>(*checkpoint_, config);
  }

  static std::vector<Request> requests(std::size_t count, std::int32_t new_tokens) {
    std::vector<Request> requests(count);
    for (std::size_t i = 0; i < count; ++i) {
      requests[i].prompt = random_prompt(10, i);
      requests[i].new_tokens_max = new_tokens;
      requests[i].prompt_logits = true;
    }
    return requests;
  }

  std::vector<Recorded> undisturbed(const std::vector<Request>& requests) {
    return RecordingEngine(*checkpoint_, small_engine()).run(requests);
  }

  // The requests that failed, each because a worker was unavailable; the others are as if nothing had been.
  std::size_t failures(const std::vector<Recorded>& expected, const std::vector<RequestId>& ids) {
    std::size_t failed = 0;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      const Recorded found = engine_->result(ids[i]);
      if (found.end.finish != FinishReason::kError) {
        expect_same_bits(expected[i], found);
        continue;
      }
      ++failed;
      EXPECT_EQ(found.end.status.error().code(), ErrorCode::kUnavailable) << found.end.status.error().message();
      EXPECT_LE(found.tokens.size(), expected[i].tokens.size());
      EXPECT_TRUE(std::equal(found.tokens.begin(), found.tokens.end(), expected[i].tokens.begin()));
    }
    return failed;
  }

  std::vector<RequestId> submit_all(const std::vector<Request>& requests) {
    std::vector<RequestId> ids;
    for (const Request& request : requests) ids.push_back(engine_->submit(request));
    return ids;
  }

  const RealClock clock_;
  std::unique_ptr<Checkpoint> checkpoint_ = Checkpoint::open("tests/goldens/step3_text_bf16");
  FaultyTransport* faulty_ = nullptr;
  std::unique_ptr<RecordingEngine> engine_;
};

TEST_F(LossyEngine, DamagedFramesAreRefusedAndSentAgain) {
  for (const PeerRank rank : {0, 1}) {  // on the way to F, and on the way back
    SCOPED_TRACE(rank);
    EngineConfig config = small_engine("1A1F", 3);
    config.resend_after_ms = 20;
    config.resends_max = 100;
    start(config, rank, {.corrupt = 0.1});
    const std::vector<Request> some = requests(4, 8);
    const std::vector<Recorded> expected = undisturbed(some);
    const std::vector<RequestId> ids = submit_all(some);
    engine_->wait();
    EXPECT_EQ(failures(expected, ids), 0u);
    engine_->engine().stop();
    const WorkerStats& a = engine_->engine().attention_workers()[0]->stats();
    const WorkerStats& f = engine_->engine().ffn_workers()[0]->stats();
    EXPECT_GT(faulty_->counts().corrupted, 0u);

    EXPECT_GT(rank == 0 ? f.frames_refused : a.frames_refused, 0);
    EXPECT_GT(a.resends, 0);
  }
}

// A worker without work has no timer, but the others' steps wait for its word.
TEST_F(LossyEngine, TheWordOfAnIdleWorkerIsSaidAgain) {
  EngineConfig config = small_engine("2A1F", 2);
  config.resend_after_ms = 20;
  config.resends_max = 100;
  const PeerRank ffn = config.layout.ffn_rank(0);
  std::uint64_t lost = 0;  // the last step whose first word did not arrive
  start(config, 1, {.drop = 1, .applies = [&, ffn](PeerRank to, std::span<const std::byte> message) {
                      const FrameHeader header = header_of(message);
                      if (to != ffn || header.kind != FrameKind::kControl || header.step <= lost) return false;
                      lost = header.step;
                      return true;
                    }});
  const std::vector<Request> one = requests(1, 3);  // an idle engine gives it to its first worker
  const std::vector<Recorded> expected = undisturbed(one);
  const std::vector<RequestId> ids = submit_all(one);
  engine_->wait();
  EXPECT_EQ(failures(expected, ids), 0u);
  engine_->engine().stop();
  EXPECT_GE(lost, 3u);
}

// Micro-batch 1 of one attention worker does not get through for a while.
class LostMicroBatch : public LossyEngine, public testing::WithParamInterface<const char*> {};
INSTANTIATE_TEST_SUITE_P(Layouts, LostMicroBatch, testing::Values("1A1F", "2A1F", "1A2F"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(LostMicroBatch, FailsItsRequestsAndNobodyElses) {
  EngineConfig config = small_engine(GetParam(), 2);
  config.resend_after_ms = 100;  // together longer than a loaded machine keeps a thread from running
  config.resends_max = 7;
  std::atomic<bool> broken = false;
  const PeerRank ffn = config.layout.ffn_rank(0);
  start(config, 0, {.drop = 1, .applies = [&, ffn](PeerRank to, std::span<const std::byte> message) {
                      return broken && to == ffn && header_of(message).kind == FrameKind::kHandOver &&
                             header_of(message).micro_batch == 1;
                    }});
  const auto attention_workers = static_cast<std::size_t>(config.layout.attention_workers);
  const std::vector<Request> some =
      requests(2 * attention_workers, 200);  // two for each worker, so one per micro-batch
  const std::vector<Recorded> expected = undisturbed(some);
  const std::vector<RequestId> ids = submit_all(some);
  for (const RequestId id : ids) engine_->wait_for_tokens(id, 2);
  broken = true;
  engine_->wait();
  EXPECT_EQ(failures(expected, ids), 1u);
  EXPECT_GE(engine_->engine().attention_workers()[0]->stats().resends, config.resends_max);
  engine_->check_integrity();
  for (const AttentionWorker* worker : engine_->engine().attention_workers()) EXPECT_EQ(worker->outstanding(), 0);

  broken = false;  // and it serves as before
  const std::vector<RequestId> again = submit_all(some);
  engine_->wait();
  EXPECT_EQ(failures(expected, again), 0u);
  engine_->check_integrity();
}

class LostWorker : public LossyEngine, public testing::WithParamInterface<bool> {
 protected:
  EngineConfig config(const char* layout, std::int32_t micro_batches) const {
    EngineConfig config = small_engine(layout, micro_batches);
    if (GetParam()) use_late_backends(config);
    return config;
  }
};
INSTANTIATE_TEST_SUITE_P(Rows, LostWorker, testing::Bool(),
                         [](const auto& info) { return std::string(info.param ? "FromDeviceToDevice" : "InFrames"); });

TEST_P(LostWorker, AnFfnWorkerThatIsGoneFailsWhatNeedsItAtOnce) {
  EngineConfig config = this->config("1A2F", 3);  // waits ten seconds before it sends again
  start(config, config.layout.ffn_rank(1), {.fail_after = 60});
  const std::vector<Request> some = requests(5, 100);
  const Nanoseconds begin = clock_.now();
  const std::vector<RequestId> ids = submit_all(some);
  engine_->wait();
  EXPECT_EQ(failures(undisturbed(some), ids), 5u);
  const std::vector<RequestId> later = submit_all(requests(2, 3));
  engine_->wait();
  for (const RequestId id : later) {
    EXPECT_EQ(engine_->result(id).end.finish, FinishReason::kError);
    EXPECT_NE(engine_->result(id).end.status.error().message().find("FFN worker 1 is gone"), std::string::npos)
        << engine_->result(id).end.status.error().message();
  }
  EXPECT_LT(clock_.now() - begin, 8'000'000'000);
  engine_->check_integrity();
}

TEST_P(LostWorker, AnAttentionWorkerThatIsGoneTakesOnlyItsOwnRequestsAlong) {
  start(config("2A1F", 2), 0, {.fail_after = 60});
  const std::vector<Request> some = requests(4, 60);  // dealt to the workers in turn
  const Nanoseconds begin = clock_.now();
  const std::vector<RequestId> ids = submit_all(some);
  engine_->wait();
  EXPECT_EQ(failures(undisturbed(some), ids), 2u);
  EXPECT_LT(clock_.now() - begin, 8'000'000'000);
  engine_->check_integrity();
}

}  // namespace
}  // namespace tandem
