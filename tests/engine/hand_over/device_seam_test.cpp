// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Decoding steps of two workers that hand over by flags: the same answers as those of one worker, also when one of the
// two stalls. In software, and on a GPU where there is one.
#include "engine/hand_over/device_seam.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <ostream>
#include <string>
#include <thread>
#include <vector>

#include "base/format.h"
#include "engine/settings/backends.h"
#include "ops/cuda/device.h"
#include "tests/engine/recording_device.h"
#include "tests/engine/recording_engine.h"

namespace tandem {
namespace {

#if defined(__SANITIZE_THREAD__)
constexpr bool kLooksForRaces = true;
#elif defined(__has_feature)
constexpr bool kLooksForRaces = __has_feature(thread_sanitizer);
#else
constexpr bool kLooksForRaces = false;
#endif

class Odd final : public TokenConstraint {  // tokens of odd numbers
 public:
  Status allowed(std::span<const std::int32_t>, std::span<std::uint32_t> words) override {
    std::ranges::fill(words, 0xaaaaaaaau);
    return Status::ok();
  }
  Status commit(std::int32_t token) override {
    EXPECT_EQ(token % 2, 1);
    return Status::ok();
  }
  bool complete() const override { return false; }
};

// Of every kind, more than run at once.
std::vector<Request> some_requests() {
  std::vector<Request> requests(10);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    Request& request = requests[i];
    request.prompt = random_prompt(5 + 9 * static_cast<std::int64_t>(i), i);
    request.new_tokens_max = 60 + 11 * static_cast<std::int32_t>(i % 4);
    if (i % 3 == 1) request.sampling = {.temperature = 1, .top_p = 0.9f, .repetition_penalty = 1.2f, .seed = i};
    if (i % 4 == 2) request.stop_ids = {7, 70, 77, 170, 177, 270, 277, 370, 377, 470};
    if (i % 5 == 3) request.constraint = std::make_shared<Odd>();
  }
  return requests;
}

struct Case {
  const char* device;  // "cpu": in software
  const char* model;
  std::int32_t ffn_gpu = 0;
  friend void PrintTo(const Case& c, std::ostream* out) {
    *out << c.device << " " << c.model << ", F on " << c.ffn_gpu;
  }
};

class DeviceSeamTest : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    if (on_gpu()) {
      const cuda::DeviceFacts facts = cuda::look_at_device();
      if (const std::string reason = cuda::why_unusable(facts); !reason.empty()) GTEST_SKIP() << reason;
      if (facts.devices <= GetParam().ffn_gpu) GTEST_SKIP() << "there is one GPU";
    }
    checkpoint_ = Checkpoint::open(std::string("tests/goldens/") + GetParam().model);
  }
  bool on_gpu() const { return std::string_view(GetParam().device) == "cuda"; }

  EngineConfig local() const {
    EngineConfig config = small_engine();
    config.backend = GetParam().device;
    return config;
  }
  // 1A1F whose FFN worker is watched.
  EngineConfig apart(std::int32_t micro_batches, bool ahead, WatchedDevice::Watch& watch) {
    EngineConfig config = small_engine("1A1F", micro_batches);
    config.backend = GetParam().device;
    config.run_ahead = ahead;
    if (on_gpu()) config.ffn_gpus = {GetParam().ffn_gpu};
    made_ = 0;
    config.wrap_backend = [this, ahead, &watch](std::unique_ptr<Backend> inner) {
      if (!on_gpu()) inner = std::make_unique<RecordingDevice>(std::move(inner), ahead);
      const bool is_ffn = made_++ == 1;  // in order of rank
      return std::make_unique<WatchedDevice>(std::move(inner), is_ffn ? watch : attention_watch_);
    };
    return config;
  }
  std::vector<Recorded> run(const EngineConfig& config, const std::vector<Request>& requests = some_requests()) {
    RecordingEngine engine(*checkpoint_, config, false);
    const std::vector<Recorded> found = engine.run(requests);
    engine.check_integrity();
    resends_ = engine.engine().attention_workers().front()->stats().resends;
    EXPECT_EQ(engine.engine().attention_workers().front()->load().kv.held, 0);
    return found;
  }

  std::unique_ptr<Checkpoint> checkpoint_;
  WatchedDevice::Watch attention_watch_;
  int made_ = 0;
  std::int64_t resends_ = 0;
};

TEST_P(DeviceSeamTest, AnswersAreThoseOfTheLocalLayout) {
  const std::vector<Recorded> expected = run(local());
  for (const std::int32_t micro_batches : {1, 3}) {
    for (const bool ahead : {false, true}) {
      for (const bool same_memory : {true, false}) {
        if (!same_memory && on_gpu()) continue;
        SCOPED_TRACE(format("{} micro-batches, ahead: {}, one memory: {}", micro_batches, ahead, same_memory));
        SoftwareFlags::same_memory_ = same_memory;
        WatchedDevice::Watch watch;
        expect_same_answers(expected, run(apart(micro_batches, ahead, watch)));
        SoftwareFlags::same_memory_ = true;
        EXPECT_GT(watch.launches, 40);
        EXPECT_EQ(resends_, 0);
      }
    }
  }
}

TEST_P(DeviceSeamTest, AndWhenBlocksRunOut) {
  const auto long_requests = [] {
    std::vector<Request> requests = some_requests();
    requests.resize(8);
    for (Request& request : requests) {
      request.new_tokens_max = 150;
      request.stop_ids.clear();
    }
    return requests;
  };
  const std::vector<Recorded> expected = run(local(), long_requests());
  WatchedDevice::Watch watch;
  EngineConfig config = apart(2, true, watch);
  config.kv_tokens = 512;
  const std::vector<Recorded> found = run(config, long_requests());
  expect_same_answers(expected, found);
  std::int32_t preemptions = 0;
  for (const Recorded& one : found) preemptions += one.end.preemptions;
  EXPECT_GT(preemptions, 0);
  EXPECT_GT(watch.launches, 20);
}

// One launch comes later than anybody waits, another not at all: what the late one still does reaches nobody.
TEST_P(DeviceSeamTest, AStepInWhichAWorkerStallsIsFreedAndGivenAgain) {
  const std::vector<Recorded> expected = run(local());
  for (const bool ahead : {false, true}) {
    SCOPED_TRACE(format("ahead: {}", ahead));
    WatchedDevice::Watch watch;
    watch.goes = [](int launch) {
      if (launch == 9) std::this_thread::sleep_for(std::chrono::milliseconds(500));
      return launch != 20 && launch != 21;
    };
    EngineConfig config = apart(2, ahead, watch);
    config.resend_after_ms = 200;
    expect_same_answers(expected, run(config));
    EXPECT_GE(resends_, 2);
    EXPECT_GT(watch.launches, 40);
  }
}

// The FFN worker's wait runs out, and it computes what memory holds, which may be of a step of other rows.
TEST_P(DeviceSeamTest, AStepThatTheAttentionWorkerIsLateForIsGivenAgain) {
  if (kLooksForRaces)
    GTEST_SKIP() << "what is computed behind a wait that ran out reads memory that others write; nobody uses it";
  const std::vector<Recorded> expected = run(local());
  for (const bool ahead : {false, true}) {
    SCOPED_TRACE(format("ahead: {}", ahead));
    WatchedDevice::Watch watch;
    attention_watch_.goes = [](int launch) {
      if (launch % 12 == 5) std::this_thread::sleep_for(std::chrono::milliseconds(500));
      return true;
    };
    EngineConfig config = apart(2, ahead, watch);
    config.resend_after_ms = 200;
    expect_same_answers(expected, run(config));
    EXPECT_GE(resends_, 2);
    EXPECT_GT(watch.launches, 40);
  }
}

TEST_P(DeviceSeamTest, WhoStallsForGoodFailsWhatWaitsForItAndSaysSo) {
  const std::vector<Recorded> expected = run(local());
  for (const bool ahead : {false, true}) {
    SCOPED_TRACE(format("ahead: {}", ahead));
    WatchedDevice::Watch watch;
    std::atomic<bool> stalls = true;
    watch.goes = [&](int launch) { return launch < 9 || !stalls; };
    EngineConfig config = apart(1, ahead, watch);
    config.resend_after_ms = 40;
    config.resends_max = 1;
    config.sequences_max = 10;  // all run together
    RecordingEngine engine(*checkpoint_, config, false);
    const std::vector<Recorded> failed = engine.run(some_requests());
    for (std::size_t i = 0; i < failed.size(); ++i) {
      SCOPED_TRACE(format("request {}", i));
      if (failed[i].end.finish != FinishReason::kError) continue;  // it had ended before
      EXPECT_EQ(failed[i].end.status.error().message(),
                "the FFN worker did not do its part of a step within 40 ms, given 2 times; from now on "
                "hand-overs go in frames");
      EXPECT_LT(failed[i].tokens.size(), expected[i].tokens.size());
    }
    EXPECT_EQ(failed[0].end.finish, FinishReason::kError);
    engine.check_integrity();
    stalls = false;
    const int launches = watch.launches;
    expect_same_answers(expected, engine.run(some_requests()));
    EXPECT_EQ(watch.launches, launches);
    engine.check_integrity();
  }
}

std::string name_of(const testing::TestParamInfo<Case>& info) {
  const bool software = info.param.device != std::string_view("cuda");
  return std::string(software ? "Software_" : info.param.ffn_gpu > 0 ? "TwoGpus_" : "Gpu_") + info.param.model;
}
INSTANTIATE_TEST_SUITE_P(All, DeviceSeamTest,
                         testing::Values(Case{"cpu", "llama"}, Case{"cpu", "qwen3_moe"}, Case{"cpu", "deepseek_v3"},
                                         Case{"cpu", "step3_text_bf16"}, Case{"cpu", "step3p5"}, Case{"cuda", "llama"},
                                         Case{"cuda", "qwen3_moe"}, Case{"cuda", "deepseek_v3"},
                                         Case{"cuda", "step3_text_bf16"}, Case{"cuda", "step3_text_fp8"},
                                         Case{"cuda", "step3p5"}, Case{"cuda", "qwen3_moe", 1},
                                         Case{"cuda", "step3_text_fp8", 1}, Case{"cuda", "step3p5", 1}),
                         name_of);

// Who looks at operators one by one, or is not alone with one other, goes on in frames.
TEST(DeviceSeam, IsNotWhereItCannotBe) {
  const auto checkpoint = Checkpoint::open("tests/goldens/qwen3_moe");
  std::string said;
  const auto launches_of = [&](const char* layout, bool observed, const std::function<void(EngineConfig&)>& change) {
    WatchedDevice::Watch watch;
    EngineConfig config = small_engine(layout);
    config.wrap_backend = [&](std::unique_ptr<Backend> inner) {
      return std::make_unique<WatchedDevice>(std::make_unique<RecordingDevice>(std::move(inner), false), watch);
    };
    change(config);
    RecordingEngine engine(*checkpoint, config, observed);
    EXPECT_EQ(engine.run({{.prompt = {1, 2, 3}, .new_tokens_max = 40}}).front().tokens.size(), 40u);
    said = engine.engine().workers().describe_hand_overs();
    return watch.launches.load();
  };
  const auto as_it_is = [](EngineConfig&) {};
  EXPECT_GT(launches_of("1A1F", false, as_it_is), 20);
  EXPECT_EQ(said, "decoding steps by flags, one launch for each side; others in frames");
  EXPECT_EQ(launches_of("1A1F", true, as_it_is), 0);
  EXPECT_EQ(said, "in frames: somebody looks into steps");
  EXPECT_EQ(launches_of("1A1F", false, [](EngineConfig& c) { c.checked = true; }), 0);
  EXPECT_EQ(said, "in frames: the two workers' devices have no flags for each other");
  EXPECT_EQ(launches_of("2A1F", false, as_it_is), 0);
  EXPECT_EQ(launches_of("1A2F", false, as_it_is), 0);
  EXPECT_EQ(said, "in frames: there are several workers of a kind");
}

TEST(DeviceSeam, OrdersAreTakenInTurnAndWhoHasEndedTakesNone) {
  RecordingDevice a(make_backend("cpu", "auto", 1, 0), false), f(make_backend("cpu", "auto", 1, 0), false);
  const std::shared_ptr<DeviceSeam> seam = DeviceSeam::make(a, f, 2, 3, 1'000'000);
  constexpr Nanoseconds kLong = 60 * kSecond;
  int woken = 0;
  seam->on_order([&] { ++woken; });
  EXPECT_EQ(seam->flag(1, 2), 5);
  EXPECT_FALSE(seam->next());
  EXPECT_EQ(seam->start({4, 0, 0}), 1u);
  EXPECT_EQ(seam->start({5, 1, 0}), 2u);
  EXPECT_EQ(woken, 2);
  EXPECT_EQ(seam->next()->epoch, 1u);
  EXPECT_EQ(seam->next()->rows, (std::vector<std::int64_t>{5, 1, 0}));
  EXPECT_FALSE(seam->next());
  EXPECT_FALSE(seam->await_launch(1'000)) << "nothing was launched";
  seam->done();
  seam->done();
  EXPECT_TRUE(seam->await_launch(0));
  std::thread takes([&] {
    std::optional<DeviceSeam::Order> order;
    while (!order) order = seam->next();
    EXPECT_EQ(order->epoch, 0u);
    seam->done();
    while (!(order = seam->next())) std::this_thread::yield();
    seam->end();
  });
  EXPECT_TRUE(seam->prepare({1, 1, 1}, kLong));
  EXPECT_FALSE(seam->prepare({2, 1, 1}, kLong)) << "it ends with this in hand";
  takes.join();
  EXPECT_FALSE(seam->prepare({2, 1, 1}, kLong));
}

}  // namespace
}  // namespace tandem
