// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A step of an attention worker: the commands of its lane, one after the other, by completion. What the commands of a
// layer compute is in attention_layer.cpp; steps that are given as a whole are in attention_run_ahead.cpp.
#include <algorithm>

#include "engine/attention/attention_worker.h"
#include "engine/attention/observed_rows.h"

namespace tandem {

namespace {
constexpr Nanoseconds kWaitMax = 100 * kMillisecond;  // then the loop looks around once
}

void AttentionWorker::run_step(Batch batch) {
  open_step(batch);
  if (!repeats_ || !run_repeating(batch)) {
    start_walk(batch);
    while (!walk_.done()) {
      if (stopping_) return scheduler_.abandon();  // others stop too and open no step: an answer may never come
      if (!advance()) wait_for_news();
    }
    if (failed_.empty() && !local() && is_repeating(batch)) recorded_.note(kind_of(batch));
  }
  parts_.backend->synchronise();  // what the next step fills anew is no longer read
  if (batch.empty()) return scheduler_.abandon();
  commit(batch);
}

void AttentionWorker::open_step(const Batch& batch) {
  step_ = std::max(step_ + 1, link_ ? link_->opened_by_peers() : 0);
  for (const BlockId block : batch.fresh.blocks) parts_.backend->zero_block(*cache_, block);
  for (const BlockId block : batch.fresh.window_blocks) parts_.backend->zero_block(*window_cache_, block);
  fill(batch);
  repeats_ = is_repeating(batch) && (local() || is_prepared(batch));
}

// Every micro-batch's inputs.
void AttentionWorker::fill(const Batch& batch) {
  for (std::size_t m = 0; m < states_.size(); ++m) {
    State& state = states_[m];
    state.plan = m < batch.micro_batches.size() ? &batch.micro_batches[m] : nullptr;
    if (state.plan) state.inputs->fill(*state.plan);
  }
}

void AttentionWorker::start_walk(const Batch& batch) {
  const auto count = static_cast<std::int32_t>(batch.micro_batches.size());
  std::vector<std::int32_t> rows(states_.size(), 0);
  // Only this worker's lanes are walked, so only its rows need to be known.
  StepShape shape{model_.layers, parts_.config.micro_batches, 1, local() ? 1 : parts_.config.layout.ffn_workers, {}};
  for (std::int32_t m = 0; m < parts_.config.micro_batches; ++m) {
    State& state = states_[m];
    shape.occupied.push_back(state.plan != nullptr);
    if (!state.plan) continue;
    const RowBatch& inputs = state.inputs->rows();
    rows[m] = static_cast<std::int32_t>(inputs.rows());
    state.residual = {state.stream.slice_rows(0, inputs.rows()), state.ffn.slice_rows(0, inputs.rows()), false};
    state.failed = false;
  }
  std::int64_t logits = 0;
  for (std::int32_t m = 0; m < count; ++m) {
    const std::int64_t mine = states_[m].inputs->rows().logit_rows.shape[0];
    states_[m].logits = logits_.slice_rows(logits, mine);
    if (repeats_) logits += mine;  // all are drawn from at the end, else each as soon as it is there
  }
  walk_.start(pipeline_.graph(shape), [&](const Command& c) {
    return local() || repeats_ || (c.kind != CommandKind::kExperts && c.kind != CommandKind::kReturn);
  });
  if (!link_ || repeats_) return;
  link_->open(step_, rows);
  for (std::int32_t m = 0; m < count; ++m)
    if (!link_->frame_free(m)) fail(m);
}

// The next command that can run; false when there is none.
bool AttentionWorker::advance() {
  const std::optional<Command> command = walk_.next();
  if (!command) return false;
  execute(*command);
  walk_.complete(command->id);
  return true;
}

void AttentionWorker::execute(const Command& command) {
  const std::int32_t m = command.micro_batch, layer = command.layer;
  State& state = states_[m];
  const Nanoseconds begin = parts_.clock->now();
  switch (command.kind) {
    case CommandKind::kEmbed:
      embed(state);
      break;
    case CommandKind::kAttention:
      attention(layer, m);
      break;
    case CommandKind::kHandOver:
      if (by_flags())
        parts_.seam->attention_flags().raise(parts_.seam->flag(layer, m));
      else if (!local() && command.ffn == 0)
        hand_over(layer, m);  // one frame, sent to all
      break;
    case CommandKind::kExperts:
      if (local()) local_experts(layer, m);
      break;
    case CommandKind::kReturn:
      break;  // the result lies, or will lie, where it is computed
    case CommandKind::kHead:
      head(m);
      if (repeats_) break;  // the whole step is drawn from together
      if (parts_.observer) show_logits(*parts_.observer, *parts_.backend, *state.plan, state.logits);
      draws_.draw(*state.plan, state.logits, results_);
      break;
  }
  const Nanoseconds end = parts_.clock->now();
  stats_.busy_ns += end - begin;
  const bool visible = command.kind != CommandKind::kReturn && command.kind != CommandKind::kHandOver;
  if (parts_.track && visible)
    parts_.track->record(
        {name(command.kind), begin, end, step_, layer, m, static_cast<std::int32_t>(state.inputs->rows().rows())});
}

void AttentionWorker::wait_for_news() {
  const Nanoseconds begin = parts_.clock->now();
  link_->poll(kWaitMax, news_);
  const Nanoseconds end = parts_.clock->now();
  stats_.wait_ns += end - begin;
  for (const HandOverLink::News& news : news_) {
    const std::int32_t m = news.micro_batch;
    if (news.failed) {
      fail(m);
      continue;
    }
    // The layer is the one that the micro-batch is in: its first return that is still open.
    for (std::int32_t f = 0; f < parts_.config.layout.ffn_workers; ++f)
      walk_.complete(walk_.graph().find(CommandKind::kReturn, states_[m].layer, m, 0, f));
  }
}

void AttentionWorker::fail(std::int32_t m) {
  State& state = states_[m];
  if (state.failed) return;
  state.failed = true;
  failure_ = link_->failure(m).is_ok() ? Status(ErrorCode::kUnavailable, "an FFN worker has stopped taking hand-overs")
                                       : link_->failure(m);
  link_->release(m);
  for (const SequenceRows& sequence : state.plan->sequences) failed_.push_back(sequence.request);
  for (const Command& command : walk_.graph().commands())
    if (command.micro_batch == m) walk_.complete(command.id);
}

void AttentionWorker::commit(const Batch& batch) {
  scheduler_.commit(results_, failed_, failure_);
  results_.clear();
  failed_.clear();
  failure_ = Status::ok();
  ++stats_.steps;
  stats_.rows += batch.rows();
}

}  // namespace tandem
