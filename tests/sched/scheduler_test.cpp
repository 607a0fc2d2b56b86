// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "sched/scheduler.h"

#include <gtest/gtest.h>

#include <map>
#include <numeric>

#include "tests/base/error_of.h"
#include "tests/sched/fake_model.h"

namespace tandem {
namespace {

constexpr std::int32_t kVocab = 1000;
constexpr std::int64_t kContext = 1024;
const Status kLost{ErrorCode::kUnavailable, "worker F0 is gone"};

Request request_of(RequestId id, std::size_t prompt_tokens, std::int32_t new_tokens_max) {
  Request request{.id = id, .prompt = std::vector<std::int32_t>(prompt_tokens), .new_tokens_max = new_tokens_max};
  std::iota(request.prompt.begin(), request.prompt.end(), static_cast<std::int32_t>(id) * 100);
  for (std::int32_t& token : request.prompt) token %= kVocab;
  return request;
}

// A scheduler with a model, taken step by step.
struct House {
  explicit House(SchedulerConfig config = {}, std::int64_t blocks = 64)
      : scheduler((config.vocab = kVocab, config.context_tokens_max = kContext, config), {.blocks = blocks}),
        model(blocks, kVocab) {}

  Batch plan() {
    Batch batch = scheduler.plan();
    model.zero(batch.fresh.blocks);
    scheduler.check_integrity();
    return batch;
  }
  std::vector<SequenceResult> compute(const Batch& batch) {
    std::vector<SequenceResult> results;
    for (const MicroBatch& micro_batch : batch.micro_batches) {
      for (const SequenceRows& rows : micro_batch.sequences) results.push_back(model.run(rows));
    }
    return results;
  }
  void commit(std::span<const SequenceResult> results, std::span<const RequestId> failed = {}, const Status& why = {}) {
    scheduler.commit(results, failed, why);
    scheduler.check_integrity();
    for (RequestEvent& event : scheduler.take_events()) {
      for (const SampledToken& token : event.tokens) answers[event.id].push_back(token.id);
      last[event.id] = std::move(event);
    }
  }
  Batch step() {
    Batch batch = plan();
    commit(compute(batch));
    return batch;
  }
  int run() {
    int steps = 0;
    for (; !scheduler.idle() && steps < 10000; ++steps) step();
    return steps;
  }

  Scheduler scheduler;
  FakeModel model;
  std::map<RequestId, std::vector<std::int32_t>> answers;
  std::map<RequestId, RequestEvent> last;
};

// position and rows of each sequence, in the batch's order.
using Shape = std::vector<std::tuple<RequestId, std::int64_t, std::int64_t>>;
Shape shape_of(const Batch& batch) {
  Shape shape;
  for (const MicroBatch& micro_batch : batch.micro_batches) {
    for (const SequenceRows& rows : micro_batch.sequences) shape.emplace_back(rows.request, rows.position, rows.rows());
  }
  return shape;
}

TEST(Scheduler, APromptIsComputedInChunksAndThenTokenByToken) {
  House house({.prefill_chunk = 100});
  const Request request = request_of(1, 150, 3);
  ASSERT_TRUE(house.scheduler.submit(request));
  const Batch first = house.step();
  EXPECT_EQ(shape_of(first), (Shape{{1, 0, 100}}));
  EXPECT_EQ(first.micro_batches[0].logits_rows(), 0);
  EXPECT_FALSE(first.micro_batches[0].sequences[0].samples);
  EXPECT_EQ(first.fresh.blocks.size(), 2u);
  EXPECT_TRUE(house.answers.empty());
  const Batch second = house.step();
  EXPECT_EQ(shape_of(second), (Shape{{1, 100, 50}}));
  EXPECT_EQ(second.micro_batches[0].logits_rows(), 1);
  EXPECT_EQ(shape_of(house.step()), (Shape{{1, 150, 1}}));
  EXPECT_EQ(shape_of(house.step()), (Shape{{1, 151, 1}}));
  EXPECT_TRUE(house.scheduler.idle());
  EXPECT_TRUE(house.plan().empty());
  EXPECT_EQ(house.answers[1], FakeModel::answer_alone(request, kContext, kVocab));
  EXPECT_EQ(house.last[1].finish, FinishReason::kLength);
  EXPECT_EQ(house.last[1].prompt_tokens, 150);
}

// What was in the middle is left, and the next scheduler over the same cache goes on from the last whole block.
TEST(Scheduler, TheNextOneGoesOnWithTheAccounts) {
  House first({.prefill_chunk = 100});
  Request request = request_of(1, 150, 60);
  const std::vector<std::int32_t> all = FakeModel::answer_alone(request, kContext, kVocab);
  ASSERT_TRUE(first.scheduler.submit(request));
  ASSERT_TRUE(first.scheduler.submit(request_of(2, 500, 20)));
  while (first.answers[1].size() < 50) first.step();  // 199 positions are computed: three blocks
  first.plan();
  Scheduler next({.prefill_chunk = 100, .context_tokens_max = kContext, .vocab = kVocab},
                 first.scheduler.take_accounts());
  next.check_integrity();
  EXPECT_EQ(next.load().kv.held, 0);
  EXPECT_GE(next.load().kv.cached, 3);
  request.answer.assign(all.begin(), all.begin() + 50);
  ASSERT_TRUE(next.submit(request));
  EXPECT_EQ(shape_of(next.plan()), (Shape{{1, 192, 8}}));
  next.abandon();
  next.cancel(1);
  const std::vector<RequestEvent> events = next.take_events();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].cached_tokens, 150);  // of the prompt, not of the answer
}

TEST(Scheduler, DecodingGoesFirstAndPrefillTakesTheRest) {
  House house({.sequences_max = 8, .rows_per_step_max = 50, .prefill_chunk = 40});
  ASSERT_TRUE(house.scheduler.submit(request_of(1, 10, 20)));
  ASSERT_TRUE(house.scheduler.submit(request_of(2, 60, 20)));
  ASSERT_TRUE(house.scheduler.submit(request_of(3, 60, 20)));
  EXPECT_EQ(shape_of(house.step()), (Shape{{1, 0, 10}, {2, 0, 40}}));
  EXPECT_EQ(shape_of(house.step()), (Shape{{1, 10, 1}, {2, 40, 20}, {3, 0, 29}}));
  EXPECT_EQ(shape_of(house.step()), (Shape{{1, 11, 1}, {2, 60, 1}, {3, 29, 31}}));
}

TEST(Scheduler, NoMoreRunThanSequencesMax) {
  House house({.sequences_max = 1});
  ASSERT_TRUE(house.scheduler.submit(request_of(1, 5, 2)));
  ASSERT_TRUE(house.scheduler.submit(request_of(2, 5, 2)));
  house.step();
  EXPECT_EQ(house.scheduler.load().running, 1);
  EXPECT_EQ(house.scheduler.load().waiting, 1);
  house.run();
  EXPECT_EQ(house.answers[2].size(), 2u);
}

TEST(Scheduler, AnEarlierPromptIsNotComputedAgainExceptItsLastToken) {
  House house;
  Request request = request_of(1, 128, 1);
  ASSERT_TRUE(house.scheduler.submit(request));
  house.run();
  request.id = 2;
  ASSERT_TRUE(house.scheduler.submit(request));
  EXPECT_EQ(shape_of(house.step()), (Shape{{2, 64, 64}}));  // the second block holds the last token
  EXPECT_EQ(house.last[2].cached_tokens, 64);
  EXPECT_EQ(house.answers[1], house.answers[2]);
  request.id = 3;
  request.cache_salt = 1;
  ASSERT_TRUE(house.scheduler.submit(request));
  EXPECT_EQ(shape_of(house.step()), (Shape{{3, 0, 128}}));
  request.id = 4;
  request.cache_salt = 0;
  request.prompt_logits = true;
  ASSERT_TRUE(house.scheduler.submit(request));
  const Batch observed = house.step();
  EXPECT_EQ(shape_of(observed), (Shape{{4, 0, 128}}));
  EXPECT_EQ(observed.micro_batches[0].logits_rows(), 128);
}

TEST(Scheduler, StopTokensEndAnAnswerAndAreReported) {
  Request request = request_of(1, 5, 50);
  const auto alone = FakeModel::answer_alone(request, kContext, kVocab);
  request.stop_ids = {alone[3]};
  House house;
  ASSERT_TRUE(house.scheduler.submit(request));
  house.run();
  EXPECT_EQ(house.answers[1], std::vector<std::int32_t>(alone.begin(), alone.begin() + 4));
  EXPECT_EQ(house.last[1].finish, FinishReason::kStop);
}

TEST(Scheduler, TheContextEndsAnAnswer) {
  House house;
  ASSERT_TRUE(house.scheduler.submit(request_of(1, kContext - 2, 50)));
  house.run();
  EXPECT_EQ(house.answers[1].size(), 2u);
  EXPECT_EQ(house.last[1].finish, FinishReason::kLength);
}

TEST(Scheduler, KeepsAcceptedDraftsAndRollsBackTheRest) {
  House house;
  const Request request = request_of(1, 62, 9);
  ASSERT_TRUE(house.scheduler.submit(request));
  house.scheduler.set_drafter([](std::span<const std::int32_t> tokens) {  // one right, one wrong
    const std::int32_t right = FakeModel::next(tokens, kVocab);
    return std::vector<std::int32_t>{right, 0};
  });
  house.step();
  const Batch batch = house.plan();
  EXPECT_EQ(shape_of(batch), (Shape{{1, 62, 3}}));
  EXPECT_EQ(batch.micro_batches[0].logits_rows(), 3);
  EXPECT_EQ(batch.fresh.blocks.size(), 1u);
  const auto results = house.compute(batch);
  EXPECT_EQ(results[0].rows_kept, 2);
  EXPECT_EQ(results[0].tokens.size(), 2u);
  house.commit(results);
  EXPECT_EQ(house.scheduler.load().kv.held, 1);  // the rejected row's block went back
  EXPECT_EQ(shape_of(house.plan()), (Shape{{1, 64, 3}}));
  house.scheduler.abandon();
  house.run();
  EXPECT_EQ(house.answers[1], FakeModel::answer_alone(request, kContext, kVocab));
}

TEST(Scheduler, DraftsNeverPassTheEndOfTheAnswerNorTheVocabulary) {
  House house;
  ASSERT_TRUE(house.scheduler.submit(request_of(1, 5, 3)));
  ASSERT_TRUE(house.scheduler.submit(request_of(2, 5, 9)));
  house.scheduler.set_drafter([](std::span<const std::int32_t> tokens) {
    return tokens.front() == 100 ? std::vector<std::int32_t>(50, 1) : std::vector<std::int32_t>{1, kVocab, 1};
  });
  house.step();
  EXPECT_EQ(shape_of(house.plan()), (Shape{{1, 5, 2}, {2, 5, 2}}));
}

TEST(Scheduler, DraftsTakeNoRowThatAnotherSequenceWaitsFor) {
  House house({.sequences_max = 3, .rows_per_step_max = 13});
  for (RequestId id : {1, 2, 3}) ASSERT_TRUE(house.scheduler.submit(request_of(id, id == 3 ? 20 : 5, 50)));
  house.scheduler.set_drafter([](std::span<const std::int32_t>) { return std::vector<std::int32_t>(7, 1); });
  EXPECT_EQ(shape_of(house.step()), (Shape{{1, 0, 5}, {2, 0, 5}, {3, 0, 3}}));
  EXPECT_EQ(shape_of(house.plan()), (Shape{{1, 5, 8}, {2, 5, 4}, {3, 3, 1}}));
}

TEST(Scheduler, AdmitsOnlyWhatFitsBesideTheRunningOnes) {
  House house({.prefill_chunk = 64}, 6);
  ASSERT_TRUE(house.scheduler.submit(request_of(1, 250, 20)));
  ASSERT_TRUE(house.scheduler.submit(request_of(2, 64, 1)));
  ASSERT_TRUE(house.scheduler.submit(request_of(3, 64, 1)));
  EXPECT_EQ(shape_of(house.step()), (Shape{{1, 0, 64}, {2, 0, 64}}));  // 4 blocks, 1 for the answer, and 1
  EXPECT_EQ(house.scheduler.load().waiting, 1);
}

TEST(Scheduler, APreemptedSequenceIsComputedAgainAndRepeatsNothing) {
  House house;
  const Request request = request_of(1, 70, 8);
  ASSERT_TRUE(house.scheduler.submit(request));
  for (int i = 0; i < 4; ++i) house.step();
  ASSERT_TRUE(house.scheduler.preempt_youngest());
  EXPECT_FALSE(house.scheduler.preempt_youngest());
  house.scheduler.check_integrity();
  const Batch again = house.step();
  EXPECT_EQ(shape_of(again), (Shape{{1, 64, 10}}));  // its own first block was still cached
  EXPECT_EQ(house.answers[1].size(), 5u);
  house.run();
  EXPECT_EQ(house.answers[1], FakeModel::answer_alone(request, kContext, kVocab));
  EXPECT_EQ(house.last[1].preemptions, 1);
  EXPECT_EQ(house.last[1].cached_tokens, 0);
}

TEST(Scheduler, AnAnswerBegunElsewhereIsGoneOnWith) {
  House house({.prefill_chunk = 100});
  Request request = request_of(1, 120, 20);
  const std::vector<std::int32_t> whole = FakeModel::answer_alone(request, kContext, kVocab);
  request.answer.assign(whole.begin(), whole.begin() + 7);
  ASSERT_TRUE(house.scheduler.submit(request));
  EXPECT_EQ(shape_of(house.step()), (Shape{{1, 0, 100}}));
  EXPECT_EQ(shape_of(house.step()), (Shape{{1, 100, 27}}));  // what is left of the prompt, and the answer so far
  house.run();
  EXPECT_EQ(house.answers[1], (std::vector<std::int32_t>(whole.begin() + 7, whole.end())));
  EXPECT_EQ(house.last[1].finish, FinishReason::kLength);
  EXPECT_EQ(house.last[1].prompt_tokens, 120);
}

TEST(Scheduler, WhenBlocksRunOutTheYoungestGivesWay) {
  House house({}, 6);
  const Request old = request_of(1, 60, 250), young = request_of(2, 60, 250);
  ASSERT_TRUE(house.scheduler.submit(old));
  ASSERT_TRUE(house.scheduler.submit(young));
  house.run();
  EXPECT_EQ(house.last[1].preemptions, 0);
  EXPECT_GT(house.last[2].preemptions, 0);
  EXPECT_EQ(house.answers[1], FakeModel::answer_alone(old, kContext, kVocab));
  EXPECT_EQ(house.answers[2], FakeModel::answer_alone(young, kContext, kVocab));
  EXPECT_EQ(house.scheduler.load().preemptions, house.last[2].preemptions);
}

TEST(Scheduler, ALostMicroBatchEndsItsRequestsOnly) {
  House house({.micro_batches = 2});
  ASSERT_TRUE(house.scheduler.submit(request_of(1, 70, 4)));
  ASSERT_TRUE(house.scheduler.submit(request_of(2, 70, 4)));
  const Batch batch = house.plan();
  ASSERT_EQ(batch.micro_batches.size(), 2u);
  const auto results = house.compute(batch);
  const RequestId lost[] = {2};
  house.commit(std::span(results).first(1), lost, kLost);
  EXPECT_EQ(house.last[2].finish, FinishReason::kError);
  EXPECT_EQ(house.last[2].status.error().message(), "worker F0 is gone");
  EXPECT_EQ(house.scheduler.load().kv.cached, 0);  // nothing of the failed step is offered to others
  house.run();
  EXPECT_EQ(house.answers[1].size(), 4u);
}

TEST(Scheduler, LogitsThatAreNotFiniteEndOneRequest) {
  House house;
  ASSERT_TRUE(house.scheduler.submit(request_of(1, 70, 4)));
  ASSERT_TRUE(house.scheduler.submit(request_of(2, 70, 4)));
  auto results = house.compute(house.plan());
  results[0].tokens[0] = {.failed = true};
  EXPECT_FALSE(house.scheduler.has_seen_bad_numbers());
  house.commit(results);
  EXPECT_EQ(house.last[1].finish, FinishReason::kError);
  EXPECT_EQ(house.last[1].status.error().message(), "logits were not finite");
  EXPECT_TRUE(house.scheduler.has_seen_bad_numbers());
  EXPECT_TRUE(house.answers[1].empty());
  EXPECT_EQ(house.scheduler.load().kv.cached, 0);
  house.run();
  EXPECT_EQ(house.answers[2].size(), 4u);
}

// Hears what is committed, ends an answer after so many tokens, and takes no more than so many.
class CountingConstraint final : public TokenConstraint {
 public:
  CountingConstraint(std::size_t ends_after, std::size_t takes) : ends_after_(ends_after), takes_(takes) {}
  Status allowed(std::span<const std::int32_t>, std::span<std::uint32_t>) override { return Status::ok(); }
  Status commit(std::int32_t token) override {
    if (committed.size() == takes_) return {ErrorCode::kInvalidData, "not this one"};
    committed.push_back(token);
    return Status::ok();
  }
  bool complete() const override { return committed.size() >= ends_after_; }

  std::vector<std::int32_t> committed;

 private:
  const std::size_t ends_after_, takes_;
};

TEST(Scheduler, AConstraintHearsEachTokenOnceAndEndsTheAnswer) {
  House house;
  Request request = request_of(1, 62, 50);
  std::vector<std::int32_t> alone = FakeModel::answer_alone(request, kContext, kVocab);
  alone.resize(9);
  const auto constraint = std::make_shared<CountingConstraint>(9, 100);
  request.constraint = constraint;
  ASSERT_TRUE(house.scheduler.submit(request));
  const Batch batch = house.plan();
  EXPECT_EQ(batch.micro_batches[0].sequences[0].constraint, constraint.get());
  house.scheduler.abandon();  // nothing of a step that is not committed reaches it
  EXPECT_TRUE(constraint->committed.empty());
  for (int i = 0; i < 4; ++i) house.step();
  ASSERT_TRUE(house.scheduler.preempt_youngest());
  house.scheduler.set_drafter([](std::span<const std::int32_t> tokens) {
    return std::vector<std::int32_t>{FakeModel::next(tokens, kVocab), 0};
  });
  house.run();
  EXPECT_EQ(house.last[1].finish, FinishReason::kStop);
  EXPECT_EQ(house.last[1].preemptions, 1);
  EXPECT_EQ(house.answers[1], alone);
  EXPECT_EQ(constraint->committed, alone);
}

// An answer begun elsewhere: its constraint comes as it was after it, and hears of the rest alone.
TEST(Scheduler, AConstraintGoesOnWhereTheAnswerDoes) {
  House house;
  Request request = request_of(1, 62, 20);
  const std::vector<std::int32_t> alone = FakeModel::answer_alone(request, kContext, kVocab);
  request.answer.assign(alone.begin(), alone.begin() + 7);
  const auto constraint = std::make_shared<CountingConstraint>(100, 100);
  request.constraint = constraint;
  ASSERT_TRUE(house.scheduler.submit(request));
  house.run();
  EXPECT_EQ(constraint->committed, std::vector<std::int32_t>(alone.begin() + 7, alone.end()));
  EXPECT_EQ(house.answers[1], constraint->committed);
}

TEST(Scheduler, AConstraintThatFailsEndsItsRequestOnlyAndSaysWhy) {
  House house;
  Request bad = request_of(1, 70, 8), other = request_of(2, 70, 8), third = request_of(3, 70, 8);
  bad.constraint = std::make_shared<CountingConstraint>(100, 2);
  third.constraint = std::make_shared<CountingConstraint>(100, 100);
  for (const Request& request : {bad, other, third}) ASSERT_TRUE(house.scheduler.submit(request));
  auto results = house.compute(house.plan());
  results[2].status = {ErrorCode::kInvalidData, "nothing may come"};  // as whoever draws says
  results[2].tokens[0] = {.failed = true};
  house.commit(results);
  EXPECT_EQ(house.last[3].finish, FinishReason::kError);
  EXPECT_EQ(house.last[3].status.error().message(), "nothing may come");
  house.run();
  EXPECT_EQ(house.last[1].finish, FinishReason::kError);
  EXPECT_EQ(house.last[1].status.error().message(), "not this one");
  EXPECT_EQ(house.answers[2], FakeModel::answer_alone(other, kContext, kVocab));
}

// Rows that each request has in a batch.
std::map<RequestId, std::int64_t> rows_of(const Batch& batch) {
  std::map<RequestId, std::int64_t> rows;
  for (const auto& [id, position, count] : shape_of(batch)) rows[id] = count;
  return rows;
}

TEST(Scheduler, WaitingPromptsNeverStopRunningAnswers) {
  constexpr std::int64_t kRowsMax = 96;
  House house({.sequences_max = 16, .rows_per_step_max = kRowsMax, .prefill_chunk = 64}, 256);
  for (RequestId id = 1; id <= 4; ++id) ASSERT_TRUE(house.scheduler.submit(request_of(id, 8, 60)));
  house.step();
  // From here on long prompts pour in. Each step has a row of every answer under way, and never more rows than allowed:
  // the time between two tokens is that of one bounded step.
  for (RequestId id = 5; id <= 12; ++id) ASSERT_TRUE(house.scheduler.submit(request_of(id, 500, 2)));
  for (int i = 0; i < 50; ++i) {
    const Batch batch = house.step();
    EXPECT_LE(batch.rows(), kRowsMax);
    const auto rows = rows_of(batch);
    for (RequestId id = 1; id <= 4; ++id) ASSERT_EQ(rows.at(id), 1) << "answer " << id << " stood still in step " << i;
    EXPECT_EQ(house.answers[1].size(), static_cast<std::size_t>(i) + 2);
  }
  EXPECT_EQ(house.answers[8].size(), 2u) << "and the prompts got what was left";
}

TEST(Scheduler, FirstTokensOfManyThatArriveTogetherComeInOrderOfArrival) {
  constexpr std::int64_t kPrompt = 40, kRequests = 20, kRowsMax = 64;
  House house({.sequences_max = kRequests, .rows_per_step_max = kRowsMax, .prefill_chunk = 32}, 256);
  for (RequestId id = 1; id <= kRequests; ++id) ASSERT_TRUE(house.scheduler.submit(request_of(id, kPrompt, 100)));
  std::map<RequestId, int> first;
  int steps = 0;
  for (; first.size() < kRequests && steps < 100; ++steps) {
    house.step();
    for (const auto& [id, answer] : house.answers) first.try_emplace(id, steps);
  }
  for (RequestId id = 2; id <= kRequests; ++id) EXPECT_LE(first.at(id - 1), first.at(id)) << id;
  // Nothing is wasted on the way: prompts and the answers beside them fill the steps.
  const std::int64_t rows_needed = kRequests * kPrompt + kRequests * steps / 2;
  EXPECT_LE(steps, rows_needed / kRowsMax + 2);
}

TEST(Scheduler, ALongPromptLeavesRoomForShortOnesBehindIt) {
  House house({.sequences_max = 8, .rows_per_step_max = 64, .prefill_chunk = 32}, 256);
  ASSERT_TRUE(house.scheduler.submit(request_of(1, 900, 4)));
  for (RequestId id = 2; id <= 4; ++id) ASSERT_TRUE(house.scheduler.submit(request_of(id, 8, 4)));
  house.step();
  for (RequestId id = 2; id <= 4; ++id) EXPECT_EQ(house.answers[id].size(), 1u) << "in the step after its arrival";
  EXPECT_TRUE(house.answers[1].empty());
}

TEST(Scheduler, ACancelledRequestsBlocksAreFreeAtOnce) {
  House house({.sequences_max = 2}, 18);
  ASSERT_TRUE(house.scheduler.submit(request_of(1, 1000, 20)));  // nearly all the cache there is
  house.step();
  ASSERT_TRUE(house.scheduler.submit(request_of(2, 1000, 20)));
  house.step();
  EXPECT_GT(house.scheduler.load().kv.held, 0);
  EXPECT_EQ(house.scheduler.load().waiting, 1);
  house.scheduler.cancel(1);  // between steps: not even the next plan is waited for
  EXPECT_EQ(house.scheduler.load().kv.held, 0);
  house.scheduler.check_integrity();
  EXPECT_EQ(rows_of(house.plan()).count(2), 1u) << "and serve who waited";
}

TEST(Scheduler, CancelsWhatWaitsWhatRunsAndWhatIsInFlight) {
  House house({.sequences_max = 2});
  for (RequestId id : {1, 2, 3}) ASSERT_TRUE(house.scheduler.submit(request_of(id, 5, 9)));
  house.step();
  house.scheduler.cancel(3);
  house.scheduler.cancel(1);
  house.scheduler.cancel(7);
  EXPECT_EQ(house.scheduler.load().running, 1);
  EXPECT_EQ(house.scheduler.load().waiting, 0);
  const Batch batch = house.plan();
  house.scheduler.cancel(2);
  house.scheduler.cancel(2);
  house.scheduler.check_integrity();
  house.commit(house.compute(batch));  // the rows' spans are still good
  for (RequestId id : {1, 2, 3}) EXPECT_EQ(house.last[id].finish, FinishReason::kCancelled);
  EXPECT_EQ(house.answers[2].size(), 1u);
  EXPECT_TRUE(house.scheduler.idle());
  EXPECT_EQ(house.scheduler.load().kv.held, 0);
}

TEST(Scheduler, AnAbandonedStepIsPlannedAgain) {
  House house;
  const Request request = request_of(1, 64, 5);
  ASSERT_TRUE(house.scheduler.submit(request));
  house.step();
  const Batch batch = house.plan();
  (void)house.compute(batch);
  house.scheduler.abandon();
  house.scheduler.check_integrity();
  EXPECT_EQ(house.scheduler.load().kv.held, 1);
  EXPECT_EQ(shape_of(house.plan()), shape_of(batch));
  house.scheduler.abandon();
  house.run();
  EXPECT_EQ(house.answers[1], FakeModel::answer_alone(request, kContext, kVocab));
}

TEST(Scheduler, RefusesWhatItCannotTake) {
  House house({.queue_max = 2});
  EXPECT_EQ(house.scheduler.submit(request_of(1, 0, 1)).error().code(), ErrorCode::kInvalidArgument);
  ASSERT_TRUE(house.scheduler.submit(request_of(1, 5, 1)));
  EXPECT_EQ(house.scheduler.submit(request_of(1, 5, 1)).error().message(), "request 1 is already here");
  ASSERT_TRUE(house.scheduler.submit(request_of(2, 5, 1)));
  const Status full = house.scheduler.submit(request_of(3, 5, 1));
  EXPECT_EQ(full.error().code(), ErrorCode::kOutOfResources);
  EXPECT_EQ(full.error().message(), "2 requests are waiting, limit is 2 (--queue-max)");
  EXPECT_EQ(error_of([] { Scheduler({.vocab = 0}, {.blocks = 1}); }).code(), ErrorCode::kInvalidArgument);
}

using SchedulerDeathTest = ::testing::Test;

TEST(SchedulerDeathTest, MisuseStopsTheProgram) {
  House house;
  ASSERT_TRUE(house.scheduler.submit(request_of(1, 5, 5)));
  auto results = house.compute(house.plan());
  EXPECT_DEATH(house.scheduler.plan(), "in flight");
  EXPECT_DEATH(house.scheduler.preempt_youngest(), "in flight");
  EXPECT_DEATH(house.scheduler.commit({}, {}), "0 results and 0 failures for 1 sequences");
  results[0].tokens.clear();
  EXPECT_DEATH(house.scheduler.commit(results, {}), "5 rows kept, 0 tokens, 1 expected");
  results[0].request = 2;
  EXPECT_DEATH(house.scheduler.commit(results, {}), "not exactly one outcome");
}

// ---- steps that are planned ahead

std::vector<RequestId> requests_of(const Batch& batch) {
  std::vector<RequestId> ids;
  for (const MicroBatch& micro_batch : batch.micro_batches)
    for (const SequenceRows& rows : micro_batch.sequences) ids.push_back(rows.request);
  return ids;
}

TEST(SchedulerAhead, TheNextRowOfEverybodyWhoGoesOn) {
  House house;
  ASSERT_TRUE(house.scheduler.submit(request_of(1, 10, 2)));
  ASSERT_TRUE(house.scheduler.submit(request_of(2, 10, 9)));
  EXPECT_FALSE(house.scheduler.plan_ahead()) << "nothing is in flight";
  Batch batch = house.plan();
  EXPECT_FALSE(house.scheduler.plan_ahead()) << "prompts are";
  house.commit(house.compute(batch));
  batch = house.plan();
  std::optional<Batch> ahead = house.scheduler.plan_ahead();
  ASSERT_TRUE(ahead);
  EXPECT_EQ(requests_of(*ahead), std::vector<RequestId>{2}) << "the other has its last token then";
  const SequenceRows& row = ahead->micro_batches[0].sequences[0];
  EXPECT_EQ(row.position, 11);
  EXPECT_EQ(row.tokens, std::vector<std::int32_t>{kTokenToCome});
  house.commit(house.compute(batch));
  house.scheduler.settle(*ahead);
  EXPECT_FALSE(row.retracted);
  EXPECT_EQ(row.tokens[0], house.answers[2].back());
  EXPECT_EQ(std::ssize(row.answer), 2);
  house.commit(house.compute(*ahead));
  EXPECT_EQ(house.answers[1].size(), 2u);
  EXPECT_EQ(house.answers[2].size(), 3u);
}

TEST(SchedulerAhead, WhoEndsMeanwhileIsRetractedAndLeavesWithTheStep) {
  House house;
  ASSERT_TRUE(house.scheduler.submit(request_of(1, 63, 9)));
  house.step();
  Batch batch = house.plan();
  std::optional<Batch> ahead = house.scheduler.plan_ahead();
  ASSERT_TRUE(ahead);
  EXPECT_EQ(ahead->fresh.blocks.size(), 1u);
  house.scheduler.cancel(1);
  house.commit(house.compute(batch));
  EXPECT_EQ(house.last[1].finish, FinishReason::kCancelled);
  EXPECT_EQ(house.scheduler.load().kv.held, 2) << "the step in flight writes there";
  house.scheduler.settle(*ahead);
  EXPECT_TRUE(ahead->micro_batches[0].sequences[0].retracted);
  house.commit(std::vector<SequenceResult>{{.request = 1}});
  EXPECT_EQ(house.scheduler.load().kv.held, 0);
  EXPECT_TRUE(house.scheduler.idle());
}

TEST(SchedulerAhead, WhoWaitsForAPlaceIsNotPassedOver) {
  House house({.sequences_max = 1});
  ASSERT_TRUE(house.scheduler.submit(request_of(1, 10, 3)));
  ASSERT_TRUE(house.scheduler.submit(request_of(2, 10, 3)));
  house.step();
  Batch batch = house.plan();
  std::optional<Batch> ahead = house.scheduler.plan_ahead();
  ASSERT_TRUE(ahead) << "there is no place before the third token";
  house.commit(house.compute(batch));
  house.scheduler.settle(*ahead);
  EXPECT_FALSE(house.scheduler.plan_ahead()) << "now there will be one";
  house.commit(house.compute(*ahead));
  EXPECT_EQ(requests_of(house.plan()), std::vector<RequestId>{2});
}

TEST(SchedulerAhead, WithoutBlocksForAllNothingChanges) {
  House house({}, 7);
  for (const RequestId id : {1, 2}) ASSERT_TRUE(house.scheduler.submit(request_of(id, 61, 200)));
  house.step();
  // Both reach position 192 in the same step, one that is planned ahead, where each needs a fourth block.
  for (bool refused = false; !refused;) {
    Batch batch = house.plan();
    ASSERT_EQ(requests_of(batch).size(), 2u);
    const std::int64_t held = house.scheduler.load().kv.held;
    std::optional<Batch> ahead = house.scheduler.plan_ahead();
    refused = !ahead;
    if (refused) {
      EXPECT_EQ(held, 6);
      EXPECT_EQ(house.scheduler.load().kv.held, held);
    } else {
      house.model.zero(ahead->fresh.blocks);
    }
    house.commit(house.compute(batch));
    if (refused) break;
    house.scheduler.settle(*ahead);
    house.commit(house.compute(*ahead));
  }
  house.run();
  for (const RequestId id : {1, 2}) EXPECT_EQ(house.answers[id].size(), 200u);
}

}  // namespace
}  // namespace tandem
