// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Steps that are given before the tokens of the step before are known: the same answers, and memory that is in use
// stays as it is.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "base/format.h"
#include "ops/forwarding.h"
#include "tests/engine/recording_engine.h"

namespace tandem {
namespace {

struct Counts {
  std::atomic<std::int64_t> replays = 0, draws = 0, left_out = 0;
  std::function<void(std::int64_t draw)> at_draw;  // on the worker's thread, when one begins
};

// Computes at once, but looks from outside as a device that does not: the host learns what was drawn when it waits for
// it, and until then what it gave to be copied from shared memory has to stay as it is. Memory for operators is not
// the host's. Leaves out rows of every position that leaves_out divides; 0: none.
class LateBackend final : public ForwardingBackend {
 public:
  LateBackend(std::unique_ptr<Backend> inner, Counts& counts, std::uint64_t leaves_out)
      : ForwardingBackend(std::move(inner)), counts_(counts), leaves_out_(leaves_out) {}

  bool host_memory() const override { return false; }
  bool runs_behind() const override { return true; }

  Buffer allocate_shared(std::size_t bytes) override {
    Buffer buffer = ForwardingBackend::allocate_shared(bytes);
    shared_.emplace_back(buffer.bytes_data(), bytes);
    return buffer;
  }
  void copy(void* to, const void* from, std::size_t bytes) override {
    ForwardingBackend::copy(to, from, bytes);
    const auto* source = static_cast<const std::byte*>(from);
    const auto holds = [&](std::span<const std::byte> s) { return source >= s.data() && source < s.data() + s.size(); };
    if (std::ranges::any_of(shared_, holds)) copies_.push_back({source, {source, source + bytes}});
  }
  void replay(std::span<const std::int64_t>, const std::function<void()>& record) override {
    ++counts_.replays;
    record();
  }
  void synchronise() override {
    ForwardingBackend::synchronise();
    settle(copies_.size());
  }

  std::unique_ptr<Draw> begin(const Sample& op, const Tensor& ids) override {
    EXPECT_FALSE(drawing_) << "two draws at a time";
    drawing_ = true;
    ++counts_.draws;
    if (counts_.at_draw) counts_.at_draw(counts_.draws);
    std::vector<SampledToken> drawn(op.out.size());
    ForwardingBackend::run(Sample{op.logits, op.rows, drawn});
    std::vector<std::size_t> left_out;
    for (std::size_t i = 0; i < drawn.size(); ++i) {
      const bool is_left_out = leaves_out_ > 0 && op.rows[i].position % leaves_out_ == 0;
      if (is_left_out) left_out.push_back(i);
      ids.as<std::int32_t>()[i] = is_left_out ? 0 : std::max(drawn[i].id, 0);
    }
    counts_.left_out += std::ssize(left_out);
    return std::make_unique<LateDraw>(*this, std::move(drawn), std::move(left_out), op.out);
  }

 private:
  struct Copied {
    const std::byte* from;
    std::vector<std::byte> bytes;
  };

  class LateDraw final : public Draw {
   public:
    LateDraw(LateBackend& backend, std::vector<SampledToken> drawn, std::vector<std::size_t> left_out,
             std::span<SampledToken> out)
        : backend_(backend),
          drawn_(std::move(drawn)),
          left_out_(std::move(left_out)),
          out_(out),
          copies_before_(backend.copies_.size()) {}
    std::vector<std::size_t> finish() override {
      backend_.settle(copies_before_);
      backend_.drawing_ = false;
      for (std::size_t i = 0; i < out_.size(); ++i)
        if (!std::ranges::binary_search(left_out_, i)) out_[i] = std::move(drawn_[i]);
      return std::move(left_out_);
    }

   private:
    LateBackend& backend_;
    std::vector<SampledToken> drawn_;
    std::vector<std::size_t> left_out_;
    std::span<SampledToken> out_;
    std::size_t copies_before_;
  };

  // The first count copies are done.
  void settle(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i)
      EXPECT_EQ(std::memcmp(copies_[i].from, copies_[i].bytes.data(), copies_[i].bytes.size()), 0)
          << "what is copied was written to";
    copies_.erase(copies_.begin(), copies_.begin() + static_cast<std::ptrdiff_t>(count));
  }

  Counts& counts_;
  const std::uint64_t leaves_out_;
  bool drawing_ = false;
  std::vector<std::span<const std::byte>> shared_;
  std::vector<Copied> copies_;
};

// Tokens whose number has the parity of the answer's length so far; ends after a given number of them.
class Alternating final : public TokenConstraint {
 public:
  explicit Alternating(std::size_t length) : length_(length) {}
  Status allowed(std::span<const std::int32_t> after, std::span<std::uint32_t> words) override {
    std::ranges::fill(words, (count_ + after.size()) % 2 == 0 ? 0x55555555u : 0xaaaaaaaau);
    return Status::ok();
  }
  Status commit(std::int32_t token) override {
    EXPECT_EQ(static_cast<std::size_t>(token) % 2, count_ % 2);
    ++count_;
    return Status::ok();
  }
  bool complete() const override { return count_ == length_; }

 private:
  std::size_t length_, count_ = 0;
};

// Of every kind; more than run at once.
std::vector<Request> some_requests() {
  std::vector<Request> requests(11);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    Request& request = requests[i];
    request.prompt = random_prompt(5 + 13 * static_cast<std::int64_t>(i), i);
    request.new_tokens_max = 50 + 17 * static_cast<std::int32_t>(i % 4);
    if (i % 3 == 1) request.sampling = {.temperature = 1, .top_p = 0.9f, .repetition_penalty = 1.2f, .seed = i};
    if (i % 4 == 2) request.stop_ids = {7, 70, 77, 170, 177, 270, 277, 370, 377, 470};
    if (i % 5 == 3) request.constraint = std::make_shared<Alternating>(33);
  }
  return requests;
}

EngineConfig late_engine(Counts& counts, std::uint64_t leaves_out, std::int32_t micro_batches = 1) {
  EngineConfig config = small_engine("local", micro_batches);
  config.wrap_backend = [&counts, leaves_out](std::unique_ptr<Backend> inner) {
    return std::make_unique<LateBackend>(std::move(inner), counts, leaves_out);
  };
  return config;
}

class RunAhead : public testing::TestWithParam<const char*> {
 protected:
  std::unique_ptr<Checkpoint> checkpoint_ = Checkpoint::open(std::string("tests/goldens/") + GetParam());
};

TEST_P(RunAhead, AnswersAreThoseOfOneStepAfterTheOther) {
  const std::vector<Recorded> expected = RecordingEngine(*checkpoint_, small_engine(), false).run(some_requests());
  for (const std::int32_t micro_batches : {1, 3}) {
    for (const std::uint64_t leaves_out : {0, 150}) {
      SCOPED_TRACE(format("{} micro-batches, positions of {} are left out", micro_batches, leaves_out));
      Counts counts;
      RecordingEngine engine(*checkpoint_, late_engine(counts, leaves_out, micro_batches), false);
      const std::vector<Recorded> found = engine.run(some_requests());
      expect_same_answers(expected, found);
      engine.check_integrity();
      EXPECT_EQ(engine.engine().attention_workers().front()->load().kv.held, 0);
      EXPECT_GT(counts.draws, leaves_out > 0 ? 20 : 60) << "of " << counts.replays << " steps";
      EXPECT_EQ(counts.left_out > 0, leaves_out > 0);
    }
  }
}
INSTANTIATE_TEST_SUITE_P(All, RunAhead, testing::Values("llama", "qwen3_moe", "deepseek_v3", "step3p5"),
                         [](const auto& info) { return std::string(info.param); });

TEST(RunAhead, RequestsComeAndGoWhileStepsAreUnderWay) {
  const auto checkpoint = Checkpoint::open("tests/goldens/llama");
  Counts counts;
  std::atomic<RequestId> id = 0;  // to be cancelled
  Engine* cancels = nullptr;
  counts.at_draw = [&](std::int64_t draw) {
    if (draw != 30) return;
    while (id == 0) std::this_thread::yield();
    cancels->cancel(id);
  };
  RecordingEngine engine(*checkpoint, late_engine(counts, 0), false);
  cancels = &engine.engine();
  const auto request = [](std::uint64_t seed, std::int32_t tokens) {
    return Request{.prompt = random_prompt(20, seed), .new_tokens_max = tokens};
  };
  const Recorded alone = RecordingEngine(*checkpoint, small_engine(), false).run({request(3, 40)}).front();
  const RequestId cancelled = engine.submit(request(1, 200)), other = engine.submit(request(2, 200));
  id = cancelled;
  engine.wait_for_tokens(other, 20);
  const RequestId late = engine.submit(request(3, 40));
  engine.wait();
  EXPECT_EQ(engine.result(cancelled).end.finish, FinishReason::kCancelled);
  EXPECT_EQ(engine.result(other).tokens.size(), 200u);
  EXPECT_EQ(engine.result(late).tokens, alone.tokens);
  engine.check_integrity();
  EXPECT_GT(counts.draws, 100);
}

// Too little KV for all, and somebody who looks between steps all the while.
TEST(RunAhead, StepsStopForWhoeverAsksAndForBlocks) {
  const auto checkpoint = Checkpoint::open("tests/goldens/llama");
  const auto long_requests = [] {
    std::vector<Request> requests = some_requests();
    requests.resize(8);
    for (Request& request : requests) {
      request.new_tokens_max = 150;
      request.stop_ids.clear();
    }
    return requests;
  };
  const std::vector<Recorded> expected = RecordingEngine(*checkpoint, small_engine(), false).run(long_requests());
  Counts counts;
  EngineConfig config = late_engine(counts, 0);
  config.kv_tokens = 512;
  RecordingEngine engine(*checkpoint, config, false);
  AttentionWorker& worker = *engine.engine().attention_workers().front();
  std::atomic<bool> ended = false;
  std::thread asks([&] {
    const std::vector<std::int32_t> prompt = long_requests().back().prompt;
    while (!ended) {
      worker.between_steps([&] {
        worker.scheduler().check_integrity();
        worker.import_pages(5, prompt, worker.export_pages(0, prompt));
      });
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  });
  const std::vector<Recorded> found = engine.run(long_requests());
  ended = true;
  asks.join();
  std::int32_t preemptions = 0;
  for (std::size_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(found[i].tokens, expected[i].tokens) << "request " << i;
    preemptions += found[i].end.preemptions;
  }
  EXPECT_GT(preemptions, 0);
  EXPECT_GT(counts.draws, 20);
}

}  // namespace
}  // namespace tandem
