// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "sched/scheduler.h"

#include <algorithm>
#include <deque>
#include <utility>

#include "base/check.h"
#include "base/format.h"
#include "sched/admission.h"
#include "sched/sequence.h"

namespace tandem {

namespace {

using SequencePtr = std::unique_ptr<Sequence>;

// A batch in the making.
struct Step {
  std::int64_t rows_left;    // of rows_per_step_max
  std::int64_t drafts_left;  // rows that no running sequence is waiting for
  std::vector<SequenceRows> rows;
  FreshBlocks fresh;
};

Status why_failed(const Sequence& sequence, const SequenceResult& result) {
  if (!sequence.failure) return sequence.failure;
  if (!result.status) return result.status;
  return {ErrorCode::kInternal, "logits were not finite"};
}

}  // namespace

struct Scheduler::State {
  SchedulerConfig config;
  KvSpace kv;
  ContentIds content_ids;
  Drafter drafter;
  std::deque<SequencePtr> waiting;   // oldest first, preempted ones included; they hold no blocks
  std::vector<SequencePtr> running;  // oldest first, all older than those waiting
  std::vector<Sequence*> in_flight;  // of running: rows of the step between plan and commit
  std::vector<Sequence*> ahead;      // of in_flight: rows of the step after it
  std::vector<RequestEvent> events;
  std::uint64_t steps = 0;
  std::uint64_t submissions = 0;
  std::int64_t preemptions = 0;
  bool bad_numbers = false;

  const Sequence* find(RequestId id) const;  // null: it is not here

  void decode(Step& step);
  void prefill(Step& step);
  void admit(Step& step);
  bool may_admit() const;
  bool only_decodes() const;
  std::vector<Sequence*> take_ahead();

  bool place(Sequence& sequence, std::int64_t count, std::span<const std::int32_t> drafts, Step& step);
  std::vector<std::int32_t> draft(const Sequence& sequence, const Step& step) const;
  std::int64_t room(const Sequence& sequence) const;
  bool fits(const Sequence& sequence) const;
  std::int64_t prefix_limit(const Sequence& sequence) const;
  Sequence& start_oldest_waiting();
  void preempt_youngest();

  void take_over(Sequence& sequence, const SequenceResult& result);
  void finish(Sequence& sequence, RequestEvent event);
  void fail(Sequence& sequence, const Status& why);
  void end_step();
};

Scheduler::Scheduler(const SchedulerConfig& config, const KvSpace::Config& kv) {
  check_config(config, kv);  // before memory is taken
  state_ = std::make_unique<State>(State{.config = config, .kv = KvSpace(kv)});
}

Scheduler::Scheduler(const SchedulerConfig& config, KvAccounts kv) {
  check_config(config, kv.space.config());
  TANDEM_CHECK(kv.space.usage().held == 0, "the accounts of a cache come with blocks that somebody holds");
  state_ = std::make_unique<State>(
      State{.config = config, .kv = std::move(kv.space), .content_ids = std::move(kv.content_ids)});
}

Scheduler::~Scheduler() = default;

// ---- the step's plan

Batch Scheduler::plan() {
  TANDEM_CHECK(state_->in_flight.empty(), "plan while a step is in flight");
  const std::int64_t rows_max = state_->config.rows_per_step_max;
  Step step{.rows_left = rows_max, .drafts_left = rows_max - std::ssize(state_->running)};
  state_->decode(step);
  state_->prefill(step);
  state_->admit(step);
  return {.step = ++state_->steps,
          .micro_batches = split_evenly(std::move(step.rows), state_->config.micro_batches),
          .fresh = std::move(step.fresh)};
}

const Sequence* Scheduler::State::find(RequestId id) const {
  for (const SequencePtr& sequence : waiting)
    if (sequence->request.id == id) return sequence.get();
  for (const SequencePtr& sequence : running)
    if (sequence->request.id == id) return sequence.get();
  return nullptr;
}

void Scheduler::State::decode(Step& step) {
  for (std::size_t i = 0; i < running.size(); ++i) {  // preemption shortens running from its end
    Sequence& sequence = *running[i];
    if (!sequence.decoding()) continue;
    const std::vector<std::int32_t> drafts = draft(sequence, step);
    if (!drafts.empty() && place(sequence, 1, drafts, step)) continue;
    while (i < running.size() && !place(sequence, 1, {}, step)) preempt_youngest();
  }
}

void Scheduler::State::prefill(Step& step) {
  for (const SequencePtr& sequence : running) {
    if (sequence->decoding()) continue;
    const std::int64_t count = std::min({sequence->pending(), config.prefill_chunk, step.rows_left, room(*sequence)});
    if (count > 0) TANDEM_CHECK(place(*sequence, count, {}, step), "a chunk that has room");
  }
}

bool Scheduler::State::may_admit() const {
  return !waiting.empty() && std::ssize(running) < config.sequences_max && fits(*waiting.front());
}

void Scheduler::State::admit(Step& step) {
  while (step.rows_left > 0 && may_admit()) {
    Sequence& sequence = start_oldest_waiting();
    const std::int64_t count = std::min({sequence.pending(), config.prefill_chunk, step.rows_left});
    TANDEM_CHECK(place(sequence, count, {}, step), "a chunk of a sequence that fits");
  }
}

// Whether the step in flight brings every running sequence one token more. One whose row is retracted has room for two.
bool Scheduler::State::only_decodes() const {
  const auto decodes = [](const Sequence* s) {
    return s->finished || (s->decoding() && s->table.tokens == s->computed + 1);
  };
  return !drafter && in_flight.size() == running.size() && std::ranges::all_of(in_flight, decodes);
}

std::optional<Batch> Scheduler::plan_ahead() {
  State& state = *state_;
  TANDEM_CHECK(state.ahead.empty(), "two steps are planned ahead");
  if (state.in_flight.empty() || !state.only_decodes() || state.may_admit()) return std::nullopt;
  const auto ends = [](const Sequence* s) { return s->finished || s->size() + 1 >= s->tokens_max; };
  if (!state.waiting.empty() && std::ranges::any_of(state.in_flight, ends))
    return std::nullopt;  // its place is free soon
  Batch batch;
  std::vector<SequenceRows> rows;
  for (Sequence* sequence : state.in_flight) {
    if (ends(sequence)) continue;
    if (!state.kv.grow(sequence->table, 1, batch.fresh)) {
      for (Sequence* other : state.take_ahead()) state.kv.truncate(other->table, other->table.tokens - 1);
      return std::nullopt;
    }
    sequence->flies_on = true;
    state.ahead.push_back(sequence);
    rows.push_back(sequence->row_ahead());
  }
  if (rows.empty()) return std::nullopt;
  batch.step = ++state.steps;
  batch.micro_batches = split_evenly(std::move(rows), state.config.micro_batches);
  return batch;
}

void Scheduler::settle(Batch& ahead) const {
  TANDEM_CHECK(state_->ahead.empty(), "a step is settled before the commit of the one before it");
  for (MicroBatch& micro_batch : ahead.micro_batches) {
    auto at = state_->in_flight.begin();  // each micro-batch has its sequences in this order
    for (SequenceRows& row : micro_batch.sequences) {
      const auto is_its = [&](const Sequence* sequence) { return sequence->request.id == row.request; };
      at = std::find_if(at, state_->in_flight.end(), is_its);
      TANDEM_CHECK(at != state_->in_flight.end(), format("request {} is not in flight", row.request));
      (*at)->settle(row);
    }
  }
}

// Gives count pending tokens and drafts their blocks and rows; false, changing nothing, when there are no blocks.
bool Scheduler::State::place(Sequence& sequence, std::int64_t count, std::span<const std::int32_t> drafts, Step& step) {
  const std::int64_t drafted = std::ssize(drafts);
  if (!kv.grow(sequence.table, count + drafted, step.fresh)) return false;
  step.rows.push_back(sequence.rows(count, drafts));
  step.rows_left -= count + drafted;
  step.drafts_left -= drafted;
  in_flight.push_back(&sequence);
  return true;
}

// Drafts and the token after them must not pass the end of the answer.
std::vector<std::int32_t> Scheduler::State::draft(const Sequence& sequence, const Step& step) const {
  const std::int64_t count_max = std::min(step.drafts_left, sequence.tokens_max - sequence.size() - 1);
  if (!drafter || count_max <= 0) return {};
  std::vector<std::int32_t> drafts = drafter(sequence.tokens);
  if (std::ssize(drafts) > count_max) drafts.resize(static_cast<std::size_t>(count_max));
  const auto unknown = std::ranges::find_if(drafts, [&](std::int32_t id) { return id < 0 || id >= config.vocab; });
  drafts.erase(unknown, drafts.end());
  return drafts;
}

// Positions that the sequence could take now.
std::int64_t Scheduler::State::room(const Sequence& sequence) const {
  return (std::ssize(sequence.table.blocks) + kv.available()) * kBlockTokens - sequence.table.tokens;
}

// Whether the sequence's tokens find room beside what the running ones were promised. Hence prompts never wait for each
// other's blocks: they lack some only while an answer has outgrown its promise, and answers end.
bool Scheduler::State::fits(const Sequence& sequence) const {
  std::int64_t promised = 0;
  for (const SequencePtr& other : running) promised += other->blocks_to_come();
  const auto hit = kv.match_prefix(sequence.request.cache_salt, sequence.prefix(), prefix_limit(sequence));
  const std::int64_t needed = sequence.blocks_to_come() - hit.tokens / kBlockTokens + hit.cached_blocks;
  return needed + promised <= kv.available();
}

// The last token is always computed, so that there are logits; with prompt_logits every token is.
std::int64_t Scheduler::State::prefix_limit(const Sequence& sequence) const {
  return sequence.request.prompt_logits || !sequence.shares_prefix ? 0 : sequence.size() - 1;
}

Sequence& Scheduler::State::start_oldest_waiting() {
  Sequence& sequence = *running.emplace_back(std::move(waiting.front()));
  waiting.pop_front();
  const std::int64_t limit = prefix_limit(sequence);
  if (limit > 0) {
    sequence.computed = kv.attach_prefix(sequence.table, sequence.request.cache_salt, sequence.prefix(), limit);
  }
  if (sequence.preemptions == 0) sequence.cached_tokens = std::min(sequence.computed, sequence.prompt_tokens);
  return sequence;
}

void Scheduler::State::preempt_youngest() {
  SequencePtr sequence = std::move(running.back());
  running.pop_back();
  kv.release(sequence->table);
  sequence->computed = 0;
  ++sequence->preemptions;
  ++preemptions;
  waiting.push_front(std::move(sequence));
}

// ---- the step's outcome

void Scheduler::commit(std::span<const SequenceResult> results, std::span<const RequestId> failed, const Status& why) {
  TANDEM_CHECK(failed.empty() || !why.is_ok(), "a failure has a reason");
  TANDEM_CHECK(
      results.size() + failed.size() == state_->in_flight.size(),
      format("{} results and {} failures for {} sequences", results.size(), failed.size(), state_->in_flight.size()));
  for (Sequence* sequence : state_->in_flight) {  // in the batch's order, whatever the order of results
    const RequestId id = sequence->request.id;
    const auto result = std::ranges::find(results, id, &SequenceResult::request);
    const bool has_failed = std::ranges::find(failed, id) != failed.end();
    TANDEM_CHECK((result != results.end()) != has_failed, format("request {}: not exactly one outcome", id));
    if (sequence->finished) continue;
    if (has_failed) {
      state_->fail(*sequence, why);
    } else {
      state_->take_over(*sequence, *result);
    }
  }
  state_->end_step();
}

void Scheduler::abandon() {
  state_->take_ahead();
  for (Sequence* sequence : state_->in_flight) state_->kv.truncate(sequence->table, sequence->computed);
  state_->end_step();
}

void Scheduler::State::take_over(Sequence& sequence, const SequenceResult& result) {
  FinishReason reason = FinishReason::kNone;
  std::vector<SampledToken> news = sequence.advance(result, reason);
  if (reason != FinishReason::kError) {  // what gave no finite logits is not for others
    if (!sequence.flies_on) kv.truncate(sequence.table, sequence.computed);
    if (sequence.shares_prefix)
      kv.publish(sequence.table, sequence.request.cache_salt, sequence.prefix(), sequence.computed);
    kv.pass_window(sequence.table, sequence.computed);
  }
  RequestEvent event = sequence.event(reason);
  event.tokens = std::move(news);
  if (reason == FinishReason::kError) {
    event.status = why_failed(sequence, result);
    bad_numbers |= sequence.failure.is_ok() && result.status.is_ok();
  }
  if (reason != FinishReason::kNone) {
    finish(sequence, std::move(event));
  } else if (!event.tokens.empty()) {
    events.push_back(std::move(event));
  }
}

void Scheduler::State::fail(Sequence& sequence, const Status& why) {
  RequestEvent event = sequence.event(FinishReason::kError);
  event.status = why;
  finish(sequence, std::move(event));
}

void Scheduler::State::finish(Sequence& sequence, RequestEvent event) {
  sequence.finished = true;
  events.push_back(std::move(event));
}

// What has ended goes, unless the step after has rows of it.
void Scheduler::State::end_step() {
  const auto goes = [](const SequencePtr& sequence) { return sequence->finished && !sequence->flies_on; };
  for (const SequencePtr& sequence : running)
    if (goes(sequence)) kv.release(sequence->table);
  std::erase_if(running, goes);
  in_flight = take_ahead();
}

std::vector<Sequence*> Scheduler::State::take_ahead() {
  for (Sequence* sequence : ahead) sequence->flies_on = false;
  return std::exchange(ahead, {});
}

// ---- requests and news

Status Scheduler::submit(Request request) {
  if (Status status = check_request(request, state_->config, state_->kv.usage().blocks); !status) return status;
  if (std::ssize(state_->waiting) >= state_->config.queue_max) {
    return {ErrorCode::kOutOfResources, format("{} requests are waiting, limit is {} (--queue-max)",
                                               state_->waiting.size(), state_->config.queue_max)};
  }
  if (state_->find(request.id)) return {ErrorCode::kInvalidArgument, format("request {} is already here", request.id)};
  state_->waiting.push_back(
      std::make_unique<Sequence>(std::move(request), state_->config.context_tokens_max, state_->content_ids));
  state_->waiting.back()->ordinal = ++state_->submissions;
  return Status::ok();
}

void Scheduler::cancel(RequestId id) {
  const auto is_meant = [&](const SequencePtr& sequence) { return sequence->request.id == id && !sequence->finished; };
  if (auto found = std::ranges::find_if(state_->waiting, is_meant); found != state_->waiting.end()) {
    state_->events.push_back((*found)->event(FinishReason::kCancelled));
    state_->waiting.erase(found);
  } else if (auto active = std::ranges::find_if(state_->running, is_meant); active != state_->running.end()) {
    state_->finish(**active, (*active)->event(FinishReason::kCancelled));
    if (state_->in_flight.empty()) state_->end_step();
  }
}

std::optional<Scheduler::Prefix> Scheduler::prefix_of(RequestId id) const {
  const Sequence* const sequence = state_->find(id);
  if (!sequence || !sequence->shares_prefix) return std::nullopt;
  const std::span<const std::int32_t> tokens = sequence->prefix();
  return Prefix{sequence->request.cache_salt, {tokens.begin(), tokens.end()}};
}

bool Scheduler::take_out(RequestId id) {
  TANDEM_CHECK(state_->in_flight.empty(), "a request is taken out of a step in flight");
  const auto is_meant = [&](const SequencePtr& sequence) { return sequence->request.id == id; };
  if (std::erase_if(state_->waiting, is_meant) > 0) return true;
  const auto active = std::ranges::find_if(state_->running, is_meant);
  if (active == state_->running.end()) return false;
  state_->kv.release((*active)->table);
  state_->running.erase(active);
  return true;
}

KvSpace& Scheduler::kv() {
  return state_->kv;
}

KvAccounts Scheduler::take_accounts() {
  if (!state_->in_flight.empty()) abandon();
  for (const SequencePtr& sequence : state_->running) state_->kv.release(sequence->table);
  state_->running.clear();
  state_->waiting.clear();
  return {std::move(state_->kv), std::move(state_->content_ids)};
}

bool Scheduler::has_seen_bad_numbers() const {
  return state_->bad_numbers;
}

void Scheduler::set_drafter(Drafter drafter) {
  state_->drafter = std::move(drafter);
}

std::vector<RequestEvent> Scheduler::take_events() {
  return std::exchange(state_->events, {});
}

bool Scheduler::idle() const {
  return state_->waiting.empty() && state_->running.empty();
}

bool Scheduler::preempt_youngest() {
  TANDEM_CHECK(state_->in_flight.empty(), "preemption while a step is in flight");
  if (state_->running.empty()) return false;
  state_->preempt_youngest();
  return true;
}

Scheduler::Load Scheduler::load() const {
  return {.waiting = std::ssize(state_->waiting),
          .running = std::ssize(state_->running),
          .preemptions = state_->preemptions,
          .kv = state_->kv.usage()};
}

void Scheduler::check_integrity() const {
  const State& state = *state_;
  std::vector<const BlockTable*> tables;
  std::uint64_t ordinal = 0;
  const auto in_order = [&](const Sequence& sequence) {
    return std::exchange(ordinal, sequence.ordinal) < sequence.ordinal;
  };
  for (const SequencePtr& sequence : state.running) {
    const bool flies = std::ranges::find(state.in_flight, sequence.get()) != state.in_flight.end();
    TANDEM_CHECK(in_order(*sequence), "running sequences are not in order of submission");
    TANDEM_CHECK(!sequence->finished || !state.in_flight.empty(), "a finished sequence outlived its step");
    sequence->check_integrity(flies);
    tables.push_back(&sequence->table);
  }
  for (const SequencePtr& sequence : state.waiting) {
    TANDEM_CHECK(in_order(*sequence), "waiting sequences are not in order of submission");
    TANDEM_CHECK(sequence->computed == 0 && sequence->table.blocks.empty(), "a waiting sequence holds blocks");
  }
  TANDEM_CHECK(std::ssize(state.running) <= state.config.sequences_max,
               format("{} sequences run", state.running.size()));
  TANDEM_CHECK(std::ssize(state.waiting) <= state.config.queue_max + state.config.sequences_max,
               "the queue is too long");
  state.kv.check_integrity(tables);
}

}  // namespace tandem
