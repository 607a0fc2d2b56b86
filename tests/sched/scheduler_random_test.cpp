// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Seeded random life of a scheduler: too many requests for too little cache, cancellations, lost micro-batches,
// abandoned steps, bad logits, rows that are not drawn, drafts right and wrong, steps planned ahead. Whatever happens,
// an answer that ends well is the one its request gets when alone, one that does not is the start of it, and nothing
// leaks. A failure prints the seed.

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "base/format.h"
#include "base/rng.h"
#include "sched/scheduler.h"
#include "tests/sched/fake_model.h"

namespace tandem {
namespace {

constexpr std::int32_t kVocab = 40;
const Status kLost{ErrorCode::kUnavailable, "lost"};

// What came of a batch's rows.
struct Outcome {
  std::vector<SequenceResult> results;
  std::vector<RequestId> failed;
};

struct Story {
  Request request;
  std::vector<std::int32_t> answer;
  RequestEvent end;
  bool ended = false;
};

class RandomLife {
 public:
  explicit RandomLife(std::uint64_t seed)
      : rng_(seed), config_(random_config()), kv_(random_kv()), scheduler_(config_, kv_), model_(kv_.blocks, kVocab) {
    if (below(2) == 0) scheduler_.set_drafter([this](std::span<const std::int32_t> tokens) { return guess(tokens); });
  }

  void run(int steps) {
    for (int i = 0; i < steps && !::testing::Test::HasFailure(); ++i) {
      if (below(3) == 0) submit();
      if (below(20) == 0) cancel();
      if (below(40) == 0) scheduler_.preempt_youngest();
      step(true);
    }
    for (int i = 0; !scheduler_.idle() && !::testing::Test::HasFailure(); ++i) {
      ASSERT_LT(i, 20000) << "requests do not end";
      step(false);
    }
    for (const auto& [id, story] : stories_) check(story);
    EXPECT_EQ(scheduler_.load().kv.held, 0);
  }

  // How often what happened.
  std::map<std::string, std::int64_t> tally;
  std::uint64_t trace() const { return trace_; }

 private:
  std::int64_t below(std::int64_t bound) {
    return static_cast<std::int64_t>(rng_.below(static_cast<std::uint64_t>(bound)));
  }

  SchedulerConfig random_config() {
    SchedulerConfig config{.queue_max = 1 + below(8), .sequences_max = 1 + below(8), .vocab = kVocab};
    config.rows_per_step_max = config.sequences_max + (below(3) == 0 ? below(4) : below(150));
    config.prefill_chunk = 1 + below(130);
    config.context_tokens_max = 20 + below(400);
    config.micro_batches = static_cast<std::int32_t>(1 + below(4));
    return config;
  }

  KvSpace::Config random_kv() {
    KvSpace::Config kv{.blocks = below(12) + 2, .prefix_cache = below(5) > 0};
    if (below(3) > 0) return kv;
    kv.window_tokens = 1 + below(90);
    kv.window_blocks =
        KvSpace::window_blocks_enough(kv.window_tokens, config_.sequences_max, config_.rows_per_step_max);
    return kv;
  }

  void submit() {
    Request request{.id = ++ids_,
                    .new_tokens_max = static_cast<std::int32_t>(1 + below(120)),
                    .cache_salt = static_cast<std::uint64_t>(below(2))};
    Rng stream(
        static_cast<std::uint64_t>(below(3)));  // prompts are starts of three streams, some with an end of their own
    request.prompt.resize(static_cast<std::size_t>(1 + below(250)));
    for (std::int32_t& token : request.prompt) token = static_cast<std::int32_t>(stream.below(kVocab));
    if (below(2) == 0) request.prompt.back() = static_cast<std::int32_t>(below(kVocab));
    if (below(2) == 0) request.stop_ids = {static_cast<std::int32_t>(below(kVocab))};
    request.prompt_logits = below(5) == 0;
    if (scheduler_.submit(request)) {
      stories_[request.id].request = request;
    } else {
      ++tally["refused"];
    }
  }

  void cancel() {
    if (ids_ > 0) scheduler_.cancel(1 + static_cast<RequestId>(below(static_cast<std::int64_t>(ids_))));
  }

  // Some of the next tokens, up to the first wrong one and beyond.
  std::vector<std::int32_t> guess(std::span<const std::int32_t> tokens) {
    std::vector<std::int32_t> all(tokens.begin(), tokens.end());
    for (std::int64_t count = below(5); count > 0; --count) {
      all.push_back(below(4) == 0 ? static_cast<std::int32_t>(below(kVocab + 1)) : FakeModel::next(all, kVocab));
    }
    return {all.begin() + std::ssize(tokens), all.end()};
  }

  // One step, and as many after it as are planned ahead.
  void step(bool with_trouble) {
    Batch batch = scheduler_.plan();
    take(batch);
    check(batch);
    Outcome outcome = compute(batch, with_trouble);
    for (;;) {
      std::optional<Batch> ahead = below(4) > 0 ? scheduler_.plan_ahead() : std::nullopt;
      Outcome outcome_ahead;
      if (ahead) {
        ++tally["planned ahead"];
        take(*ahead);
        outcome_ahead = compute_ahead(*ahead, outcome, with_trouble);
      }
      if (with_trouble && below(30) == 0) cancel();  // while in flight
      const bool abandons = with_trouble && below(30) == 0;
      if (abandons) {
        scheduler_.abandon();
        ++tally["abandoned"];
      } else {
        commit(outcome);
      }
      scheduler_.check_integrity();
      for (RequestEvent& event : scheduler_.take_events()) hear(std::move(event));
      if (abandons || !ahead) return;
      scheduler_.settle(*ahead);
      check(*ahead);
      retract(*ahead, outcome_ahead);
      outcome = std::move(outcome_ahead);
    }
  }

  void take(const Batch& batch) {
    model_.zero(batch.fresh.blocks);
    scheduler_.check_integrity();
  }

  Outcome compute(const Batch& batch, bool with_trouble) {
    Outcome outcome;
    for (const MicroBatch& micro_batch : batch.micro_batches) {
      const bool lost = with_trouble && below(60) == 0;
      for (const SequenceRows& rows : micro_batch.sequences) {
        SequenceResult result = model_.run(rows);
        tally["accepted drafts"] += std::max<std::int64_t>(0, std::ssize(result.tokens) - 1);
        tally["rejected rows"] += rows.rows() - result.rows_kept;
        result = disturbed(std::move(result), with_trouble);
        if (lost) {
          outcome.failed.push_back(rows.request);
        } else {
          outcome.results.push_back(std::move(result));
        }
      }
    }
    return outcome;
  }

  SequenceResult disturbed(SequenceResult result, bool with_trouble) {
    if (with_trouble && !result.tokens.empty() && below(200) == 0) result.tokens.back() = {.failed = true};
    if (!with_trouble || below(50) > 0) return result;
    ++tally["not drawn"];
    return {.request = result.request};
  }

  // As a device does, before anybody has heard what came of the step before.
  Outcome compute_ahead(const Batch& ahead, const Outcome& before, bool with_trouble) {
    Outcome outcome;
    for (const MicroBatch& micro_batch : ahead.micro_batches) {
      for (SequenceRows rows : micro_batch.sequences) {
        const auto drawn = std::ranges::find(before.results, rows.request, &SequenceResult::request);
        const bool has_token = drawn != before.results.end() && !drawn->tokens.empty() && !drawn->tokens[0].failed;
        const Story& story = stories_.at(rows.request);
        rows.tokens = {has_token ? drawn->tokens[0].id : 0};
        rows.prompt = story.request.prompt;
        std::vector<std::int32_t> answer = story.answer;
        answer.push_back(rows.tokens[0]);
        rows.answer = answer;
        outcome.results.push_back(disturbed(model_.run(rows), with_trouble));
      }
    }
    return outcome;
  }

  void retract(const Batch& ahead, Outcome& outcome) {
    std::size_t i = 0;
    for (const MicroBatch& micro_batch : ahead.micro_batches) {
      for (const SequenceRows& rows : micro_batch.sequences) {
        SequenceResult& result = outcome.results[i++];
        if (rows.retracted) result = {.request = rows.request};
        tally["retracted"] += rows.retracted;
      }
    }
  }

  void commit(Outcome& outcome) {
    std::vector<SequenceResult>& results = outcome.results;
    for (std::size_t i = results.size(); i > 1; --i)
      std::swap(results[i - 1], results[static_cast<std::size_t>(below(static_cast<std::int64_t>(i)))]);
    scheduler_.commit(results, outcome.failed, outcome.failed.empty() ? Status() : kLost);
  }

  void check(const Batch& batch) {
    EXPECT_LE(batch.rows(), config_.rows_per_step_max);
    EXPECT_LE(std::ssize(batch.micro_batches), config_.micro_batches);
    EXPECT_TRUE(!batch.empty() || (scheduler_.load().running == 0 && scheduler_.load().waiting == 0)) << "nobody moves";
    std::set<RequestId> seen;
    for (const MicroBatch& micro_batch : batch.micro_batches) {
      EXPECT_FALSE(micro_batch.sequences.empty());
      for (const SequenceRows& rows : micro_batch.sequences) {
        EXPECT_TRUE(seen.insert(rows.request).second);
        if (rows.retracted) continue;
        const Request& request = stories_.at(rows.request).request;
        EXPECT_TRUE(std::ranges::equal(rows.prompt, request.prompt));
        EXPECT_TRUE(std::ranges::equal(rows.answer, stories_.at(rows.request).answer));
        if (request.prompt_logits && rows.position < std::ssize(request.prompt)) {
          EXPECT_EQ(rows.logits_from, 0);
        }
        trace_ = mix64(trace_ ^ rows.request) + static_cast<std::uint64_t>(rows.position * 1000 + rows.rows());
      }
    }
    const std::set<std::int32_t> fresh(batch.fresh.blocks.begin(), batch.fresh.blocks.end());
    EXPECT_EQ(fresh.size(), batch.fresh.blocks.size());
  }

  void hear(RequestEvent event) {
    Story& story = stories_.at(event.id);
    EXPECT_FALSE(story.ended) << "news after the end";
    for (const SampledToken& token : event.tokens) story.answer.push_back(token.id);
    if (event.finish == FinishReason::kNone) return;
    ++tally[std::string(name(event.finish))];
    tally["preemptions"] += event.preemptions;
    tally["cached tokens"] += event.cached_tokens;
    story.ended = true;
    story.end = std::move(event);
  }

  void check(const Story& story) {
    ASSERT_TRUE(story.ended);
    const auto alone = FakeModel::answer_alone(story.request, config_.context_tokens_max, kVocab);
    ASSERT_LE(story.answer.size(), alone.size());
    EXPECT_TRUE(std::equal(story.answer.begin(), story.answer.end(), alone.begin())) << "request " << story.request.id;
    const auto& stops = story.request.stop_ids;
    const bool stops_there = std::ranges::find(stops, alone.back()) != stops.end();
    switch (story.end.finish) {
      case FinishReason::kStop:
      case FinishReason::kLength:
        EXPECT_EQ(story.answer.size(), alone.size());
        EXPECT_EQ(story.end.finish == FinishReason::kStop, stops_there);
        break;
      case FinishReason::kError:
        EXPECT_FALSE(story.end.status);
        break;
      default:
        EXPECT_EQ(story.end.finish, FinishReason::kCancelled);
    }
    EXPECT_EQ(story.end.prompt_tokens, std::ssize(story.request.prompt));
    EXPECT_LT(story.end.cached_tokens, story.end.prompt_tokens);
  }

  Rng rng_;
  SchedulerConfig config_;
  KvSpace::Config kv_;
  Scheduler scheduler_;
  FakeModel model_;
  std::map<RequestId, Story> stories_;
  RequestId ids_ = 0;
  std::uint64_t trace_ = 0;
};

TEST(SchedulerRandom, AnswersDoNotDependOnTheSchedule) {
  std::map<std::string, std::int64_t> tally;
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    SCOPED_TRACE(format("seed {}", seed));
    RandomLife life(seed);
    life.run(200);
    if (HasFailure()) return;
    for (const auto& [what, count] : life.tally) tally[what] += count;
  }
  for (const char* what : {"refused", "accepted drafts", "rejected rows", "abandoned", "not drawn", "planned ahead",
                           "retracted", "stop", "length", "cancelled", "error", "preemptions", "cached tokens"}) {
    EXPECT_GT(tally[what], 100) << what;  // the test reaches what it is for
  }
}

TEST(SchedulerRandom, TheSameCallsGiveTheSameBatches) {
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    SCOPED_TRACE(format("seed {}", seed));
    RandomLife first(seed), second(seed);
    first.run(150);
    second.run(150);
    EXPECT_EQ(first.trace(), second.trace());
    EXPECT_NE(first.trace(), 0u);
  }
}

}  // namespace
}  // namespace tandem
