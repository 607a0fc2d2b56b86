// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "engine/vision/vision_worker.h"

#include <gmock/gmock.h>

#include <condition_variable>
#include <thread>

#include "ops/cpu/cpu_backend.h"
#include "ops/cuda/cuda_backend.h"
#include "ops/cuda/device.h"
#include "ops/forwarding.h"
#include "tests/image/recording.h"

namespace tandem {
namespace {

using testing::HasSubstr;

constexpr Nanoseconds kPatience = 60 * kSecond;

// Lets operators run while it is open.
struct Gate {
  std::mutex mutex;
  std::condition_variable changed;
  bool open = true;
  int waiting = 0;

  void set(bool to) {
    std::lock_guard lock(mutex);
    open = to;
    changed.notify_all();
  }
  void pass() {
    std::unique_lock lock(mutex);
    ++waiting;
    changed.notify_all();
    changed.wait(lock, [this] { return open; });
    --waiting;
  }
  void wait_for_somebody() {
    std::unique_lock lock(mutex);
    changed.wait(lock, [this] { return waiting > 0; });
  }
};

// Lets operators run while the gate is open; those of views that fail find no memory half way.
class GatedBackend final : public ForwardingBackend {
 public:
  GatedBackend(std::unique_ptr<Backend> inner, Gate& gate, const std::atomic<bool>& fails)
      : ForwardingBackend(std::move(inner)), gate_(gate), fails_(fails) {}
  void run(const Operator& op) override {
    gate_.pass();
    if (fails_ && std::holds_alternative<FullAttention>(op))
      throw Error(ErrorCode::kOutOfResources, "64 MiB of GPU memory: 3 MiB are free");
    ForwardingBackend::run(op);
  }

 private:
  Gate& gate_;
  const std::atomic<bool>& fails_;
};

class VisionWorkerTest : public testing::Test {
 protected:
  explicit VisionWorkerTest(const VisionWorker::Limits& limits = {},
                            std::unique_ptr<Backend> inner = make_cpu_backend({.threads = 1})) {
    const auto checkpoint = Checkpoint::open("tests/goldens/step3_vl");
    auto backend = std::make_unique<GatedBackend>(std::move(inner), gate_, fails_);
    auto vision = load_vision(*checkpoint, *backend);
    worker_ = std::make_unique<VisionWorker>(std::move(backend), std::move(vision), limits,
                                             [this](Request request, std::shared_ptr<EventStream> events) {
                                               const RequestId id = request.id;
                                               forwarded_.push_back(std::move(request));
                                               events->push({.id = id, .finish = FinishReason::kStop});
                                             });
    thread_ = std::thread([this] { worker_->run(); });
  }
  ~VisionWorkerTest() override {
    gate_.set(true);
    worker_->stop();
    thread_.join();
  }

  // A small picture: a whole view and no crops.
  static std::shared_ptr<const PictureToSee> picture(std::uint8_t name, PictureSize size = {64, 64}) {
    auto made = std::make_shared<PictureToSee>();
    made->picture = formula_picture(size);
    made->picture.rgb[0] = name;
    made->digest[0] = name;
    made->plan = plan_crops(size);
    return made;
  }
  Status submit(RequestId id, const std::vector<std::shared_ptr<const PictureToSee>>& pictures,
                std::uint64_t salt = 0) {
    Request request{.id = id, .prompt = std::vector<std::int32_t>(2000, 1), .cache_salt = salt};
    std::vector<PlacedPicture> placed;
    std::int64_t at = 0;
    for (const auto& one : pictures) {
      const std::int64_t rows = visual_rows(one->plan, worker_->config());
      placed.push_back({one, {{at, rows, 0}}});
      at += rows;
    }
    return worker_->submit(std::move(request), std::move(placed), events_);
  }
  // Of which the first was recorded.
  void sees_two_pictures() {
    const auto shown = std::make_shared<PictureToSee>(*picture(1));
    shown->picture = formula_picture({64, 64});
    ASSERT_TRUE(submit(1, {shown, picture(2)}));
    EXPECT_EQ(next_event().finish, FinishReason::kStop);
    const Request& request = forwarded_.at(0);
    ASSERT_EQ(request.embedded.size(), 2u);
    EXPECT_EQ(request.embedded[1].position, 169);
    EXPECT_EQ(request.embedded[1].count, 169);
    EXPECT_EQ(request.embedded[1].rows->digest[0], 2);
    const std::vector<float> recorded = VisionRecording().values<float>("image0.visual_rows");
    const std::vector<float>& found = request.embedded[0].rows->values;
    ASSERT_EQ(found.size(), recorded.size());
    for (std::size_t i = 0; i < found.size(); ++i) ASSERT_NEAR(found[i], recorded[i], 1e-4);
  }
  RequestEvent next_event() {
    const std::optional<RequestEvent> event = events_->pop(kPatience);
    EXPECT_TRUE(event);
    return event.value_or(RequestEvent{});
  }

  Gate gate_;
  std::atomic<bool> fails_ = false;
  std::shared_ptr<EventStream> events_ = std::make_shared<EventStream>();
  std::vector<Request> forwarded_;  // read after an event of theirs
  std::unique_ptr<VisionWorker> worker_;
  std::thread thread_;
};

TEST_F(VisionWorkerTest, HandsARequestOnWithTheRowsOfItsPictures) {
  sees_two_pictures();
}

// Of memory, say: the request has the reason, and the next one is seen.
TEST_F(VisionWorkerTest, AFailureEndsTheRequestThatMetItAlone) {
  fails_ = true;
  ASSERT_TRUE(submit(1, {picture(1)}));
  const RequestEvent event = next_event();
  EXPECT_EQ(event.id, 1u);
  EXPECT_EQ(event.finish, FinishReason::kError);
  EXPECT_EQ(event.status.error().code(), ErrorCode::kOutOfResources);
  EXPECT_THAT(event.status.error().message(), HasSubstr("3 MiB are free"));
  EXPECT_TRUE(forwarded_.empty());
  fails_ = false;
  sees_two_pictures();
}

class VisionWorkerOnTheGpu : public VisionWorkerTest {
 protected:
  VisionWorkerOnTheGpu()
      : VisionWorkerTest({}, cuda::why_unusable(cuda::look_at_device()).empty()
                                 ? make_cuda_backend(0, GpuPriority::kBackground)
                                 : make_cpu_backend({.threads = 1})) {}
  void SetUp() override {
    if (const std::string reason = cuda::why_unusable(cuda::look_at_device()); !reason.empty()) GTEST_SKIP() << reason;
  }
};

TEST_F(VisionWorkerOnTheGpu, HandsARequestOnWithTheRowsOfItsPictures) {
  sees_two_pictures();
}

TEST_F(VisionWorkerTest, SeesEachContentOnceForEachSalt) {
  for (const auto& [name, salt] : {std::pair{1, 0}, {1, 0}, {2, 0}, {1, 5}, {1, 5}}) {
    ASSERT_TRUE(submit(1, {picture(static_cast<std::uint8_t>(name))}, static_cast<std::uint64_t>(salt)));
    next_event();
  }
  EXPECT_EQ(worker_->stats().pictures, 5);
  EXPECT_EQ(worker_->stats().cache_hits, 2);
  EXPECT_EQ(worker_->stats().views, 3);
  EXPECT_EQ(forwarded_[1].embedded[0].rows, forwarded_[0].embedded[0].rows);
}

// Whoever submits does not wait, and a cancellation ends a request here wherever it stands.
TEST_F(VisionWorkerTest, ACancelledRequestGoesNoFurther) {
  gate_.set(false);
  ASSERT_TRUE(submit(1, {picture(1)}));
  ASSERT_TRUE(submit(2, {picture(2)}));
  ASSERT_TRUE(submit(3, {picture(3)}));
  gate_.wait_for_somebody();
  worker_->cancel(1);
  worker_->cancel(3);
  worker_->cancel(77);
  gate_.set(true);
  std::map<RequestId, FinishReason> ends;
  for (int i = 0; i < 3; ++i) {
    const RequestEvent event = next_event();
    ends[event.id] = event.finish;
  }
  EXPECT_EQ(ends[1], FinishReason::kCancelled);
  EXPECT_EQ(ends[2], FinishReason::kStop);
  EXPECT_EQ(ends[3], FinishReason::kCancelled);
  EXPECT_EQ(forwarded_.size(), 1u);
}

TEST_F(VisionWorkerTest, WhatIsStillHereEndsWithTheWorker) {
  gate_.set(false);
  ASSERT_TRUE(submit(1, {picture(1)}));
  ASSERT_TRUE(submit(2, {picture(2)}));
  gate_.wait_for_somebody();
  worker_->stop();
  gate_.set(true);
  EXPECT_EQ(next_event().finish, FinishReason::kCancelled);
  EXPECT_EQ(next_event().finish, FinishReason::kCancelled);
  ASSERT_TRUE(submit(3, {picture(3)}));
  EXPECT_EQ(next_event().finish, FinishReason::kCancelled);
}

class NarrowVisionWorker : public VisionWorkerTest {
 protected:
  static constexpr std::int64_t kPictureBytes = 64 * 64 * 3, kRowBytes = 169 * 128 * 4;
  NarrowVisionWorker()
      : VisionWorkerTest({.cache_bytes = 2 * kRowBytes, .pending_bytes = 2 * kPictureBytes, .requests = 4}) {}
};

TEST_F(NarrowVisionWorker, ForgetsWhatWasUsedLongestAgo) {
  for (const int name : {1, 2, 1, 3, 1, 2}) {
    ASSERT_TRUE(submit(1, {picture(static_cast<std::uint8_t>(name))}));
    next_event();
  }
  EXPECT_EQ(worker_->stats().cache_hits, 2);  // 1, twice; 2 had to go for 3
  EXPECT_EQ(worker_->stats().views, 4);
}

TEST_F(NarrowVisionWorker, RefusesMoreThanMayWait) {
  gate_.set(false);
  const auto one = picture(1), two = picture(2);
  ASSERT_TRUE(submit(1, {one}));
  ASSERT_TRUE(submit(2, {two}));
  const Status third = submit(3, {picture(3)});
  ASSERT_FALSE(third);
  EXPECT_EQ(third.error().code(), ErrorCode::kOutOfResources);
  EXPECT_THAT(third.error().message(), HasSubstr("--pictures-pending-mib"));
  ASSERT_TRUE(submit(4, {one, two})) << "what waits already takes no more room";
  ASSERT_TRUE(submit(5, {one}));
  EXPECT_THAT(submit(6, {one}).error().message(), HasSubstr("4 requests wait for their pictures"));
  gate_.set(true);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(next_event().finish, FinishReason::kStop);
  ASSERT_TRUE(submit(7, {picture(7, {128, 100})})) << "alone, any picture is taken";
  EXPECT_EQ(next_event().finish, FinishReason::kStop);
}

}  // namespace
}  // namespace tandem
