// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// An FFN worker alone, and the test in the place of its attention worker: every valid frame is answered with the bits
// that the model gives, whatever was sent before it, and nothing else is answered at all.
#include "engine/ffn/ffn_worker.h"

#include <gtest/gtest.h>

#include <cstring>
#include <deque>
#include <functional>
#include <thread>

#include "base/rng.h"
#include "model/layer_pieces.h"
#include "ops/reference/reference_backend.h"
#include "transport/inproc/inproc.h"

namespace tandem {
namespace {

using Bytes = std::vector<std::byte>;

constexpr std::int32_t kDense = 0, kRouted = 1;  // layers of the checkpoint
constexpr std::int32_t kMicroBatches = 2;
constexpr std::size_t kSlotBytes = 16384, kSlots = 64;  // the first half to send from
constexpr int kSendsMax = 8;
constexpr Nanoseconds kLong = 20 * kSecond, kShort = 30 * kMillisecond;

class FfnWorkerTest : public testing::Test {
 protected:
  FfnWorkerTest() : checkpoint_(Checkpoint::open("tests/goldens/step3_text_bf16")), memory_(kSlotBytes * kSlots) {
    config_.layout = parse_layout("1A1F");
    config_.micro_batches = kMicroBatches;
    config_.rows_max = 4;
    config_.deployment = 77;
    std::unique_ptr<Backend> backend = make_reference_backend();
    const ModelShare share{.attention = false, .ffn = true, .experts = ffn_share(0, 1, 8)};
    model_ = load_model(*checkpoint_, share, *backend);
    InprocNetwork network(2);
    transport_ = network.endpoint(0);
    EXPECT_TRUE(transport_->register_region(memory_));
    for (std::size_t i = kSlots / 2; i < kSlots; ++i) post_receive(i);
    worker_ = std::make_unique<FfnWorker>(config_, 0, model_, std::move(backend), network.endpoint(1), clock_, nullptr);
    thread_ = std::thread([this] { worker_->run(); });
  }
  ~FfnWorkerTest() override {
    worker_->stop();
    thread_.join();
  }

  void post_receive(std::size_t slot) {
    EXPECT_TRUE(transport_->post_receive(1, std::span(memory_).subspan(slot * kSlotBytes, kSlotBytes), slot));
  }

  void send(const Bytes& message) {
    while (sends_in_flight_ == kSendsMax) poll(kLong);
    const std::size_t slot = next_slot_++ % (kSlots / 2);
    std::memcpy(memory_.data() + slot * kSlotBytes, message.data(), message.size());
    EXPECT_TRUE(transport_->post_send(1, std::span(memory_).subspan(slot * kSlotBytes, message.size()), slot));
    ++sends_in_flight_;
  }

  void poll(Nanoseconds wait) {
    TransportEvent event;
    if (transport_->poll({&event, 1}, wait) == 0) return;
    if (event.kind == TransportEvent::Kind::kSent) {
      --sends_in_flight_;
      return;
    }
    const std::byte* at = memory_.data() + event.operation * kSlotBytes;
    answers_.emplace_back(at, at + event.bytes);
    post_receive(event.operation);
  }

  // The next answer; none within wait is an empty one.
  Bytes answer(Nanoseconds wait) {
    const Nanoseconds end = clock_.now() + wait;
    for (Nanoseconds now = clock_.now(); answers_.empty() && now < end; now = clock_.now()) poll(end - now);
    if (answers_.empty()) return {};
    Bytes message = std::move(answers_.front());
    answers_.pop_front();
    return message;
  }

  Bytes frame(FrameKind kind, std::uint64_t step, std::int32_t layer, std::int32_t m, std::int32_t rows,
              std::size_t payload_bytes, const std::function<void(std::span<std::byte>)>& fill) const {
    Bytes message(sizeof(FrameHeader) + payload_bytes);
    fill(payload(std::span(message)));
    FrameHeader header;
    header.kind = kind;
    header.deployment = 77;
    header.step = step;
    header.layer = layer;
    header.micro_batch = m;
    header.rows = rows;
    seal_frame(header, message);
    return message;
  }

  Bytes control(std::uint64_t step, std::vector<std::int32_t> rows) const {
    return frame(FrameKind::kControl, step, 0, 0, 0, rows.size() * 4,
                 [&](std::span<std::byte> to) { std::memcpy(to.data(), rows.data(), to.size()); });
  }

  // A hand-over of random rows; all choose the experts first, first + 1 and first + 2.
  Bytes hand_over(std::uint64_t step, std::int32_t layer, std::int32_t m, std::int32_t rows, std::int32_t first = 2) {
    const std::int64_t hidden = model_->config().hidden, k = model_->config().is_routed(layer) ? 3 : 0;
    return frame(FrameKind::kHandOver, step, layer, m, rows, hand_over_bytes(rows, hidden, k),
                 [&](std::span<std::byte> to) {
                   Rng rng(static_cast<std::uint64_t>(layer * 10 + rows));
                   const HandOver view = hand_over_in(to, rows, hidden, k);
                   for (std::int64_t i = 0; i < rows * hidden; ++i) view.hidden.as<float>()[i] = rng.normal();
                   for (std::int64_t i = 0; i < rows * k; ++i) {
                     view.expert_ids.as<std::int32_t>()[i] = first + static_cast<std::int32_t>(i % k);
                     view.expert_weights.as<float>()[i] = 0.25f;
                   }
                 });
  }

  // The payload that answers a hand-over, by the model itself.
  Bytes expected(Bytes message) const {
    FrameHeader header;
    std::memcpy(&header, message.data(), sizeof header);
    const std::unique_ptr<Backend> backend = make_reference_backend();
    Arena arena(*backend, model_->ffn_scratch_bytes(4));
    const std::int64_t hidden = model_->config().hidden, k = model_->config().is_routed(header.layer) ? 3 : 0;
    const HandOver input = hand_over_in(payload(std::span(message)), header.rows, hidden, k);
    Bytes bytes(return_bytes(header.rows * k, header.rows, hidden));
    model_->experts({*backend, arena}, header.layer, input, return_in(bytes, header.rows * k, header.rows, hidden));
    return bytes;
  }

  void expect_answer(const Bytes& question) {
    const Bytes found = answer(kLong);
    ASSERT_GE(found.size(), sizeof(FrameHeader)) << "no answer";
    const Result<FrameHeader> header = check_frame(found, config_.frame_limits(model_->config()));
    ASSERT_TRUE(header) << header.error().message();
    FrameHeader asked, got;
    std::memcpy(&asked, question.data(), sizeof asked);
    std::memcpy(&got, found.data(), sizeof got);
    EXPECT_EQ(got.kind, FrameKind::kReturn);
    EXPECT_EQ(got.source, 1);
    EXPECT_EQ(std::tuple(got.step, got.layer, got.micro_batch, got.rows),
              std::tuple(asked.step, asked.layer, asked.micro_batch, asked.rows));
    EXPECT_EQ(Bytes(found.begin() + sizeof(FrameHeader), found.end()), expected(question));
  }

  const RealClock clock_;
  std::unique_ptr<Checkpoint> checkpoint_;
  WorkerConfig config_;
  std::shared_ptr<const Model> model_;
  Bytes memory_;
  std::unique_ptr<Transport> transport_;
  std::unique_ptr<FfnWorker> worker_;
  std::thread thread_;
  std::size_t next_slot_ = 0;
  int sends_in_flight_ = 0;
  std::deque<Bytes> answers_;
};

TEST_F(FfnWorkerTest, AnswersTheHandOversOfAStep) {
  send(control(1, {3, 1}));
  for (const std::int32_t layer : {kDense, kRouted}) {
    for (const std::int32_t m : {0, 1}) {
      send(hand_over(1, layer, m, m == 0 ? 3 : 1));
      expect_answer(hand_over(1, layer, m, m == 0 ? 3 : 1));
    }
  }
}

TEST_F(FfnWorkerTest, AnswersARepeatedFrameWithTheSameBits) {
  send(control(1, {2, 0}));
  const Bytes question = hand_over(1, kDense, 0, 2);
  for (int i = 0; i < 3; ++i) {
    send(question);
    expect_answer(question);
  }
}

TEST_F(FfnWorkerTest, AnswersFramesOfAStepThatIsOver) {
  send(control(1, {2, 0}));
  send(control(2, {1, 0}));
  send(hand_over(2, kDense, 0, 1));
  expect_answer(hand_over(2, kDense, 0, 1));
  send(hand_over(1, kRouted, 0, 2));
  expect_answer(hand_over(1, kRouted, 0, 2));
}

TEST_F(FfnWorkerTest, KeepsAFrameUntilItsStepOpens) {
  send(hand_over(4, kDense, 0, 2));
  EXPECT_TRUE(answer(kShort).empty());
  send(control(4, {2, 0}));
  expect_answer(hand_over(4, kDense, 0, 2));
}

TEST_F(FfnWorkerTest, AnswersRowsThatTheControlWordDidNotAnnounce) {
  send(control(1, {2, 0}));
  send(hand_over(1, kRouted, 1, 4));
  expect_answer(hand_over(1, kRouted, 1, 4));
}

TEST_F(FfnWorkerTest, RefusesWhatDoesNotHoldTogetherAndGoesOn) {
  send(control(1, {2, 0}));
  const Bytes good = hand_over(1, kRouted, 0, 2);
  std::vector<Bytes> bad(4, good);
  bad[0][sizeof(FrameHeader) + 5] ^= std::byte{1};  // a bit of the payload
  bad[1].resize(bad[1].size() - 4);                 // cut short
  bad[2].resize(8);                                 // no header
  bad[3][9] ^= std::byte{1};                        // of another deployment
  bad.push_back(hand_over(1, kRouted, 0, 2, 6));    // expert 8 of 8
  bad.push_back(hand_over(1, kRouted, 0, 2, -1));   // expert -1
  // Sound frames in the wrong place: no choices for a routed layer, a kind that nobody sends to an FFN worker.
  bad.push_back(frame(FrameKind::kHandOver, 1, kRouted, 0, 2, hand_over_bytes(2, 128, 0),
                      [](auto to) { std::memset(to.data(), 0, to.size()); }));
  bad.push_back(frame(FrameKind::kReturn, 1, kRouted, 0, 2, return_bytes(0, 2, 128),
                      [](auto to) { std::memset(to.data(), 0, to.size()); }));
  for (const Bytes& message : bad) send(message);
  send(good);
  expect_answer(good);
  EXPECT_TRUE(answer(kShort).empty());
  EXPECT_EQ(worker_->stats().frames_refused, std::ssize(bad));
}

TEST_F(FfnWorkerTest, ManyRandomFramesDoNotDisturbIt) {
  Rng rng(1);
  send(control(1, {2, 0}));
  const Bytes good = hand_over(1, kDense, 0, 2);
  for (int i = 0; i < 300; ++i) {
    Bytes message = good;
    for (int flips = 0; flips < 3; ++flips) message[rng.below(message.size())] = static_cast<std::byte>(rng.next());
    message.resize(rng.below(message.size() + 1));
    send(message);
  }
  send(good);
  expect_answer(good);
}

// What is asked of the experts: none of a worker's chosen, one chosen by all, and no rows at all.
class RoutedExpertsTest : public FfnWorkerTest {
 protected:
  Bytes run(const FfnShare& share, Bytes& question, std::int64_t slots) {
    const std::unique_ptr<Backend> backend = make_reference_backend();
    const auto model = load_model(*checkpoint_, {.attention = false, .ffn = true, .experts = share}, *backend);
    Arena arena(*backend, model->ffn_scratch_bytes(4));
    FrameHeader header;
    std::memcpy(&header, question.data(), sizeof header);
    const HandOver input = hand_over_in(payload(std::span(question)), header.rows, 128, 3);
    EXPECT_EQ(count_slots(input, share), slots);
    Bytes bytes(return_bytes(slots, share.slice_count > 0 ? header.rows : 0, 128));
    model->experts({*backend, arena}, kRouted, input,
                   return_in(bytes, slots, share.slice_count > 0 ? header.rows : 0, 128));
    return bytes;
  }
};

TEST_F(RoutedExpertsTest, SharesThatNobodyChoseReturnOnlyTheirSlices) {
  Bytes question = hand_over(1, kRouted, 0, 4, 0);  // experts 0, 1, 2
  const Bytes whole = expected(question);
  const Bytes chosen = run({0, 4, 0, 0}, question, 12);
  EXPECT_EQ(chosen, Bytes(whole.begin(), whole.begin() + 12 * 128 * 4));
  EXPECT_TRUE(run({4, 8, 0, 0}, question, 0).empty());
  const Bytes slices = run({4, 8, 0, 8}, question, 0);
  EXPECT_EQ(slices, Bytes(whole.end() - 4 * 128 * 4, whole.end()));
}

TEST_F(RoutedExpertsTest, OneExpertChosenByAll) {
  Bytes question = hand_over(1, kRouted, 0, 4, 3);  // experts 3, 4, 5
  const Bytes whole = expected(question);
  const Bytes one = run({4, 5, 0, 0}, question, 4);
  for (std::size_t row = 0; row < 4; ++row)  // its rows are every third of the whole
    EXPECT_EQ(std::memcmp(one.data() + row * 512, whole.data() + (3 * row + 1) * 512, 512), 0);
}

}  // namespace
}  // namespace tandem
