// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What an attention worker computes in a step: the commands of its lane, one after the other, by completion.
#include <algorithm>
#include <bit>
#include <cstring>
#include <unordered_map>

#include "base/format.h"
#include "engine/attention_worker.h"
#include "model/layer_pieces.h"

namespace tandem {

namespace {
constexpr Nanoseconds kWaitMax = 100 * kMillisecond;  // then the loop looks around once
constexpr Nanoseconds kPreparationMax = 10 * kSecond;
}  // namespace

void AttentionWorker::run_step(Batch batch) {
  open_step(batch);
  if (!repeats_ || !run_repeating(batch)) {
    start_walk(batch);
    while (!walk_.done()) {
      if (stopping_) return scheduler_.abandon();  // others stop too and open no step: an answer may never come
      if (!advance()) wait_for_news();
    }
    if (failed_.empty()) note_frames(batch);
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

// Gives the step to the backend, and those after it as long as it can be told what they are before the tokens of the
// one before are known. Every one but the last is committed; that one, which batch is then, has been drawn from, or,
// where this is false, goes on as other steps do.
//
//   backend  … forward n          | draw n | forward n+1             | draw n+1 | …
//   host       plan n+1, give all |   wait | commit n, plan n+2, give all | wait | …
bool AttentionWorker::run_repeating(Batch& batch) {
  std::uint64_t epoch = give(batch);
  while (std::optional<Batch> next = plan_ahead(batch)) {
    std::unique_ptr<Draw> draw = begin_draw(batch);
    open_step(*next);
    std::uint64_t next_epoch = give_behind(batch, *next);
    std::vector<std::size_t> left_out = draw->finish();
    if (stalled(epoch) && redo(batch)) {
      draw = begin_draw(batch);
      fill(*next);
      next_epoch = give_behind(batch, *next);
      left_out = draw->finish();
    }
    const bool given_up = !failed_.empty();
    if (!given_up) take_drawn(batch.micro_batches, left_out);
    commit(batch);
    publish_events();
    scheduler_.settle(*next);
    batch = std::move(*next);
    if (given_up) return keep_nothing(batch), true;
    if (!repeats_) return fill(batch), false;
    epoch = next_epoch;
  }
  const Tensor logits = logits_.slice_rows(0, batch.rows());
  await_launch();
  draw_all(batch.micro_batches, logits);
  if (!stalled(epoch)) return true;
  results_.clear();
  if (redo(batch)) draw_all(batch.micro_batches, logits);
  return true;
}

// The epoch that it is given as, where an FFN worker takes part.
std::uint64_t AttentionWorker::give(const Batch& step) {
  const std::vector<std::int64_t> key = step_key(step);
  if (local()) {
    parts_.backend->replay(key, [&] { record(step); });
    return 0;
  }
  const std::uint64_t epoch = parts_.seam->start(rows_by_micro_batch(step));
  parts_.seam->attention_flags().begin(epoch);
  parts_.backend->launch(key);
  return epoch;
}

// The step after batch, which is being drawn from, where it can be given like that.
std::uint64_t AttentionWorker::give_behind(const Batch& batch, const Batch& next) {
  TANDEM_CHECK(repeats_ || !local(), "a step that was planned ahead");
  if (!repeats_) return 0;
  take_drawn_ids(batch, next);
  return give(next);
}

void AttentionWorker::record(const Batch& batch) {
  start_walk(batch);
  while (advance()) continue;
}

std::unique_ptr<Draw> AttentionWorker::begin_draw(const Batch& batch) {
  const std::int64_t rows = batch.rows();
  await_launch();
  return parts_.backend->begin(draw_together(batch.micro_batches, logits_.slice_rows(0, rows)),
                               Tensor(drawn_ids_.data(), DType::kI32, {rows}));
}

// Drawing may take memory.
void AttentionWorker::await_launch() {
  if (parts_.seam) parts_.seam->await_launch(parts_.config.resend_after);
}

bool AttentionWorker::stalled(std::uint64_t epoch) const {
  return epoch > 0 && parts_.seam->attention_flags().poisoned(epoch);
}

// Gives a step again in which somebody stalled, when all that was given has ended. False: it went wrong too often, and
// its requests fail.
bool AttentionWorker::redo(const Batch& batch) {
  for (std::int32_t i = 0; i < parts_.config.resends_max && !stopping_; ++i) {
    ++stats_.resends;
    parts_.backend->synchronise();
    fill(batch);
    const std::uint64_t epoch = give(batch);
    parts_.backend->synchronise();
    if (!stalled(epoch)) return true;
  }
  failure_ = Status(ErrorCode::kUnavailable,
                    format("the FFN worker did not do its part of a step within {} ms, given {} times; from now on "
                           "hand-overs go in frames",
                           parts_.config.resend_after / kMillisecond, parts_.config.resends_max + 1));
  for (const MicroBatch& micro_batch : batch.micro_batches)
    for (const SequenceRows& sequence : micro_batch.sequences) failed_.push_back(sequence.request);
  return leave_seam();
}

// Of a step that ran ahead of one that was given up.
void AttentionWorker::keep_nothing(const Batch& batch) {
  for (const MicroBatch& micro_batch : batch.micro_batches)
    for (const SequenceRows& s : micro_batch.sequences) results_.push_back({s.request, 0, {}});
}

std::optional<Batch> AttentionWorker::plan_ahead(const Batch& batch) {
  if (!runs_ahead() || stopping_ || inbox_waits()) return std::nullopt;
  const auto needs_host = [this](const SequenceRows& s) { return drawn_by_host_.contains(s.request); };
  const auto has_such = [&](const MicroBatch& m) { return std::ranges::any_of(m.sequences, needs_host); };
  if (!drawn_by_host_.empty() && std::ranges::any_of(batch.micro_batches, has_such)) return std::nullopt;
  return scheduler_.plan_ahead();
}

// A row's token is where the step before has drawn it; neighbours stay neighbours but for those that have ended.
void AttentionWorker::take_drawn_ids(const Batch& before, const Batch& batch) {
  std::unordered_map<RequestId, std::size_t> places;  // in drawn_ids_
  for (const MicroBatch& micro_batch : before.micro_batches)
    for (const SequenceRows& s : micro_batch.sequences) places.emplace(s.request, places.size());
  const auto* drawn = static_cast<const std::int32_t*>(drawn_ids_.data());
  for (std::size_t m = 0; m < batch.micro_batches.size(); ++m) {
    const std::vector<SequenceRows>& sequences = batch.micro_batches[m].sequences;
    auto* ids = states_[m].inputs->rows().ids.as<std::int32_t>();
    for (std::size_t begin = 0, end = 0; begin < sequences.size(); begin = end) {
      const std::size_t from = places.at(sequences[begin].request);
      for (end = begin + 1; end < sequences.size(); ++end)
        if (places.at(sequences[end].request) != from + end - begin) break;
      parts_.backend->copy(ids + begin, drawn + from, (end - begin) * sizeof(std::int32_t));
    }
  }
}

// The next command that can run; false when there is none.
bool AttentionWorker::advance() {
  const std::optional<Command> command = walk_.next();
  if (!command) return false;
  execute(*command);
  walk_.complete(command->id);
  return true;
}

// A step that comes again and again: every sequence decodes one token, all in this process, and nobody looks inside.
bool AttentionWorker::is_repeating(const Batch& batch) const {
  if (!local() && (!parts_.seam || seam_left_)) return false;
  if (parts_.observer || parts_.track || batch.rows() > logits_.rows()) return false;
  for (std::size_t m = 0; m < batch.micro_batches.size(); ++m) {
    const Tensor& embedded = states_[m].inputs->rows().embedded;
    if (embedded && embedded.rows() > 0) return false;
    for (const SequenceRows& s : batch.micro_batches[m].sequences)
      if (s.rows() != 1 || s.logits_rows() != 1 || !s.samples) return false;
  }
  return true;
}

// A whole step in frames: both sides have run every operator of its kind, with all memory that they need.
void AttentionWorker::note_frames(const Batch& batch) {
  constexpr std::size_t kKeysMax = 4096;
  if (local() || !is_repeating(batch)) return;
  if (seen_keys_.size() >= kKeysMax) seen_keys_.clear();
  seen_keys_.insert(step_key(batch));
}

// Whether a repeating step can be given to both sides without frames. The first of its kind goes in frames.
bool AttentionWorker::is_prepared(const Batch& batch) {
  const std::vector<std::int64_t> key = step_key(batch);
  if (!seen_keys_.contains(key)) return false;
  for (std::size_t m = 0; m < batch.micro_batches.size(); ++m)
    if (!link_->frame_free(static_cast<std::int32_t>(m))) return false;
  repeats_ = true;
  const bool is_new = parts_.backend->prepare(key, [&] { record(batch); });
  const Nanoseconds limit = std::max(kPreparationMax, parts_.config.resend_after);
  return !is_new || parts_.seam->prepare(rows_by_micro_batch(batch), limit) || leave_seam();
}

// The FFN worker has ended, or its device does not take part: frames need less of both.
bool AttentionWorker::leave_seam() {
  seam_left_ = true;  // its flags are still asked about steps under way
  return false;
}

std::vector<std::int64_t> AttentionWorker::rows_by_micro_batch(const Batch& batch) const {
  std::vector<std::int64_t> rows(states_.size(), 0);
  for (std::size_t m = 0; m < batch.micro_batches.size(); ++m) rows[m] = batch.micro_batches[m].rows();
  return rows;
}

// What decides which operators a repeating step runs and how they are best launched; memory is the same in every step.
// Contexts count by powers of two.
std::vector<std::int64_t> AttentionWorker::step_key(const Batch& batch) const {
  const auto magnitude = [](std::int64_t tokens) -> std::int64_t {
    return static_cast<std::int64_t>(std::bit_width(static_cast<std::uint64_t>(tokens)));
  };
  std::vector<std::int64_t> key;
  for (std::size_t m = 0; m < batch.micro_batches.size(); ++m) {
    const RowBatch& rows = states_[m].inputs->rows();
    key.insert(key.end(),
               {rows.rows(), rows.block_table.shape[1], magnitude(rows.context_tokens), magnitude(rows.window_tokens)});
  }
  return key;
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
      if (!repeats_) sample(*state.plan, state.logits);
      break;
  }
  const Nanoseconds end = parts_.clock->now();
  stats_.busy_ns += end - begin;
  const bool visible = command.kind != CommandKind::kReturn && command.kind != CommandKind::kHandOver;
  if (parts_.track && visible)
    parts_.track->record({name(command.kind).data(), begin, end, step_, layer, m,
                          static_cast<std::int32_t>(state.inputs->rows().rows())});
}

void AttentionWorker::embed(State& state) {
  const RowBatch& rows = state.inputs->rows();
  parts_.model->embed(workspace(), rows, state.residual);
  if (rows.embedded && rows.embedded.rows() > 0)  // a model that takes none has no place for them
    parts_.backend->run(
        ScatterScaledRows{state.residual.stream, rows.embedded, rows.embedded_at, rows.embedded_weights});
}

void AttentionWorker::attention(std::int32_t layer, std::int32_t m) {
  State& state = states_[m];
  if (layer > 0) combine(layer - 1, state, m);
  const std::int64_t rows = state.inputs->rows().rows(), k = top_k(layer);
  state.layer = layer;
  const Activations activations = parts_.config.activations;
  state.hand_over = hand_over_in_frame() ? link_->hand_over(m, rows, k)
                                         : hand_over_in(state.hand_over_memory, rows, model_.hidden, k, activations);
  if (quantises()) state.hand_over.hidden = state.hidden.slice_rows(0, rows);
  parts_.model->attention(workspace(), layer, state.inputs->rows(), state.residual, state.hand_over);
  if (k > 0) parts_.model->route(workspace(), layer, state.hand_over);
  if (quantises())
    parts_.backend->run(QuantiseRows{state.hand_over.codes, state.hand_over.scales, state.hand_over.hidden});
  if (parts_.observer && k > 0) observe_route(layer, state);
  if (local() || by_flags()) return;
  if (device_rows()) return read_choices(state, m);
  if (!hand_over_in_frame()) {
    state.hand_over = link_->hand_over(m, rows, k);
    const Tensor& first = quantises() ? state.hand_over.scales : state.hand_over.hidden;
    parts_.backend->copy(first.data, state.hand_over_memory.data(),
                         hand_over_bytes(rows, model_.hidden, k, activations));
  }
  parts_.backend->synchronise();
}

// Rows stay where they are, and are sent while they are still being computed. Where several workers are to have them,
// the host has to know who.
void AttentionWorker::read_choices(State& state, std::int32_t m) {
  HandOver& hand_over = state.hand_over;
  if (!hand_over.expert_ids || !parts_.config.shares_slots()) {
    if (parts_.track) parts_.backend->synchronise();  // it shows how long that takes
    return;
  }
  const HandOver here = link_->choices(m);
  parts_.backend->copy(here.expert_ids.data, hand_over.expert_ids.data,
                       choices_bytes(here.expert_ids.rows(), here.expert_ids.shape[1]));
  parts_.backend->synchronise();
  hand_over.expert_ids = here.expert_ids;
  hand_over.expert_weights = here.expert_weights;
}

void AttentionWorker::hand_over(std::int32_t layer, std::int32_t m) {
  std::int64_t slots[kWorkersMax];
  const HandOver& all = states_[m].hand_over;
  for (std::size_t f = 0; f < shares_.size(); ++f)
    slots[f] = parts_.config.shares_slots() ? count_slots(all, shares_[f]) : all.slots();
  link_->send(m, layer, std::span(slots, shares_.size()));
}

void AttentionWorker::local_experts(std::int32_t layer, std::int32_t m) {
  State& state = states_[m];
  const std::int64_t rows = state.hand_over.rows();
  state.local_output = return_in(state.local_return, rows * top_k(layer),
                                 partial_rows(model_, shares_.front(), layer, rows), model_.hidden);
  if (quantises())  // as it would cross
    parts_.backend->run(WidenRows{state.hand_over.hidden, state.hand_over.codes, state.hand_over.scales});
  parts_.model->experts(workspace(), layer, state.hand_over, state.local_output);
}

// Adds up what the FFN workers sent back, in slot order and over the fixed tree.
void AttentionWorker::combine(std::int32_t layer, State& state, std::int32_t m) {
  if (by_flags()) await_return(layer, state, m);
  Tensor partials[kWorkersMax];
  std::int32_t slice_counts[kWorkersMax];
  std::size_t count = 0;
  for (std::size_t f = 0; f < shares_.size(); ++f) {
    const FfnOutput& output =
        local() || by_flags() ? state.local_output : link_->returned(m, static_cast<std::int32_t>(f));
    if (!output.partial) continue;
    partials[count] = output.partial;
    slice_counts[count++] = shares_[f].slice_count;
  }
  parts_.backend->run(CombineExperts{.out = state.residual.ffn,
                                     .slot_rows = top_k(layer) > 0 ? slots_in_order(state, m) : Tensor(),
                                     .top_k = static_cast<std::int32_t>(top_k(layer)),
                                     .partials = std::span(partials, count),
                                     .slice_counts = std::span(slice_counts, count)});
  state.residual.has_ffn = true;
  if (local() || by_flags()) return;
  if (!device_rows()) parts_.backend->synchronise();  // it read the frames
  link_->release(m);
}

// Work that follows finds the return of the only FFN worker, in the memory where it is computed.
void AttentionWorker::await_return(std::int32_t layer, State& state, std::int32_t m) {
  const std::int64_t rows = state.inputs->rows().rows();
  parts_.seam->attention_flags().wait(parts_.seam->flag(layer, m));
  state.local_output = return_in(parts_.seam->returns[static_cast<std::size_t>(m)], rows * top_k(layer),
                                 partial_rows(model_, shares_.front(), layer, rows), model_.hidden);
}

// One worker's slot rows are in order already; those of several are merged by who owns each slot's expert.
Tensor AttentionWorker::slots_in_order(State& state, std::int32_t m) {
  if (local() || by_flags()) return state.local_output.slot_rows;
  if (shares_.size() == 1) return link_->returned(m, 0).slot_rows;
  if (cuts_experts() || device_rows()) return slots_by_place(state, m);
  const std::int64_t slots = state.hand_over.expert_ids.shape.elements();
  const std::size_t bytes = static_cast<std::size_t>(model_.hidden) * 4;
  const auto* ids = state.hand_over.expert_ids.as<const std::int32_t>();
  std::int64_t next[kWorkersMax] = {};
  for (std::int64_t s = 0; s < slots; ++s) {
    std::int32_t f = 0;
    while (!shares_[f].owns(ids[s])) ++f;
    std::memcpy(state.slot_rows.row<float>(s), link_->returned(m, f).slot_rows.row<float>(next[f]++), bytes);
  }
  return state.slot_rows.slice_rows(0, slots);
}

// The same where the host only says where each row goes: it has no rows, or they come in parts. The memory that says it
// is filled again after attention() has waited for the next layer's choices. Rows that come whole are weighted already;
// 1 · x is x.
Tensor AttentionWorker::slots_by_place(State& state, std::int32_t m) {
  const Tensor& expert_ids = state.hand_over.expert_ids;
  const std::int64_t slots = expert_ids.shape.elements();
  const auto* ids = expert_ids.as<const std::int32_t>();
  const auto* weights = state.hand_over.expert_weights.as<const float>();
  const Tensor in_order = state.slot_rows.slice_rows(0, slots);
  const auto width = static_cast<std::size_t>(parts_.config.layout.ffn_width);
  std::int64_t first = 0;
  for (std::size_t f = 0; f < shares_.size(); f += width) {
    std::int64_t end = first;
    for (std::int64_t s = 0; s < slots; ++s) {
      if (!shares_[f].owns(ids[s])) continue;
      if (cuts_experts()) state.weights.as<float>()[end] = weights[s];
      state.places.as<std::int32_t>()[end++] = static_cast<std::int32_t>(s);
    }
    if (end == first) continue;
    parts_.backend->run(ScatterScaledRows{.out = in_order,
                                          .x = cuts_experts()
                                                   ? sum_of_parts(m, f, state.sums.slice_rows(first, end - first))
                                                   : link_->returned(m, static_cast<std::int32_t>(f)).slot_rows,
                                          .index = state.places.slice_rows(first, end - first),
                                          .weights = state.weights.slice_rows(first, end - first)});
    first = end;
  }
  return in_order;
}

// Where experts are cut by width the workers of a group, of which f is the first, have sent a node of each sum's tree,
// for the same slots in the same order. What is left of the tree is added here, and is then weighted as an FFN worker
// that holds whole experts does.
Tensor AttentionWorker::sum_of_parts(std::int32_t m, std::size_t f, const Tensor& sums) {
  const auto width = static_cast<std::size_t>(parts_.config.layout.ffn_width);
  Tensor partials[KSlices::kCountMax];
  std::int32_t slice_counts[KSlices::kCountMax];
  for (std::size_t part = 0; part < width; ++part) {
    partials[part] = link_->returned(m, static_cast<std::int32_t>(f + part)).slot_rows;
    slice_counts[part] = shares_[f + part].width_count;
  }
  parts_.backend->run(CombineExperts{.out = sums,
                                     .slot_rows = {},
                                     .top_k = 0,
                                     .partials = std::span(partials, width),
                                     .slice_counts = std::span(slice_counts, width)});
  return sums;
}

void AttentionWorker::head(std::int32_t m) {
  State& state = states_[m];
  combine(model_.layers - 1, state, m);
  parts_.model->head(workspace(), state.inputs->rows(), state.residual, state.logits);
}

void AttentionWorker::sample(const MicroBatch& plan, const Tensor& logits) {
  if (parts_.observer) observe_logits(plan, logits);
  // In plain decoding every row of logits is drawn from, and all draws are one operator.
  if (std::ranges::all_of(plan.sequences, [](const SequenceRows& s) { return s.logits_rows() == (s.samples ? 1 : 0); }))
    return draw_all(std::span(&plan, 1), logits);
  std::int64_t row = 0;
  for (const SequenceRows& sequence : plan.sequences) {
    SequenceResult result{sequence.request, sequence.rows(), {}};
    row += sequence.logits_rows();
    if (sequence.samples) draw(sequence, logits, row, result);
    results_.push_back(std::move(result));
  }
}

void AttentionWorker::draw_all(std::span<const MicroBatch> plans, const Tensor& logits) {
  const Sample all = draw_together(plans, logits);
  if (!all.rows.empty()) parts_.backend->run(all);
  parts_.backend->synchronise();
  take_drawn(plans, {});
}

// The one operator of all rows that are drawn from. Of a retracted row anything is drawn, for nobody.
Sample AttentionWorker::draw_together(std::span<const MicroBatch> plans, const Tensor& logits) {
  static const SamplingParams kLikeliest{.temperature = 0};
  draw_rows_.clear();
  draw_statuses_.clear();
  drawn_.assign(static_cast<std::size_t>(logits.rows()), {});
  for (const MicroBatch& plan : plans) {
    for (const SequenceRows& s : plan.sequences) {
      if (!s.samples) continue;
      SampleRow row{s.sampling, s.prompt, s.answer, static_cast<std::uint64_t>(s.position + s.rows())};
      if (s.retracted) row = {&kLikeliest, {}, {}, 0};
      draw_statuses_.push_back(s.retracted ? Status::ok() : allow(s, {}, draw_rows_.size(), row));
      draw_rows_.push_back(row);
    }
  }
  return {logits, draw_rows_, drawn_};
}

// left_out: rows of the operator that were not drawn.
void AttentionWorker::take_drawn(std::span<const MicroBatch> plans, std::span<const std::size_t> left_out) {
  std::size_t row = 0;
  for (const MicroBatch& plan : plans) {
    for (const SequenceRows& s : plan.sequences) {
      SequenceResult& result = results_.emplace_back(SequenceResult{s.request, s.rows(), {}});
      if (!s.samples) continue;
      const std::size_t mine = row++;
      if (s.retracted || std::ranges::binary_search(left_out, mine)) {
        result.rows_kept = 0;
        if (!s.retracted) drawn_by_host_.insert(s.request);
        continue;
      }
      result.status = draw_statuses_[mine];
      result.tokens.push_back(std::move(drawn_[mine]));
      if (!result.status) result.tokens.back().failed = true;
    }
  }
}

// Lets row draw only what the sequence's constraint allows after the answer and after. place: of the row among those
// that are drawn together.
Status AttentionWorker::allow(const SequenceRows& sequence, std::span<const std::int32_t> after, std::size_t place,
                              SampleRow& row) {
  if (!sequence.constraint) return Status::ok();
  const auto words = static_cast<std::size_t>(model_.vocab + 31) / 32;
  allowed_.resize(words * static_cast<std::size_t>(parts_.config.rows_max));
  const std::span<std::uint32_t> mine = std::span(allowed_).subspan(place * words, words);
  Status status = sequence.constraint->allowed(after, mine);
  if (status) row.allowed = mine;
  return status;
}

// Draws after the last row that is not a draft; each draft that the draw confirms lets the next row be drawn from as
// well.
void AttentionWorker::draw(const SequenceRows& sequence, const Tensor& logits, std::int64_t logits_end,
                           SequenceResult& result) {
  std::vector<std::int32_t> answer;
  if (sequence.drafts > 0) answer.assign(sequence.answer.begin(), sequence.answer.end());
  for (std::int64_t i = sequence.rows() - 1 - sequence.drafts; i < sequence.rows(); ++i) {
    SampleRow row{sequence.sampling, sequence.prompt,
                  sequence.drafts > 0 ? std::span<const std::int32_t>(answer) : sequence.answer,
                  static_cast<std::uint64_t>(sequence.position + i + 1)};
    result.status = allow(sequence, row.answer.subspan(sequence.answer.size()), 0, row);
    SampledToken token;
    parts_.backend->run(
        Sample{logits.slice_rows(logits_end - sequence.rows() + i, 1), std::span(&row, 1), std::span(&token, 1)});
    parts_.backend->synchronise();
    if (!result.status) token.failed = true;
    result.rows_kept = i + 1;
    result.tokens.push_back(token);
    if (token.failed || i + 1 == sequence.rows() || sequence.tokens[i + 1] != token.id) return;
    answer.push_back(token.id);
  }
}

void AttentionWorker::observe_logits(const MicroBatch& plan, const Tensor& logits) {
  const auto vocab = static_cast<std::size_t>(model_.vocab);
  observed_logits_.resize(static_cast<std::size_t>(logits.rows()) * vocab);
  parts_.backend->copy(observed_logits_.data(), logits.data, observed_logits_.size() * sizeof(float));
  parts_.backend->synchronise();
  std::size_t row = 0;
  for (const SequenceRows& sequence : plan.sequences)
    for (std::int64_t i = sequence.logits_from; i < sequence.rows(); ++i, ++row)
      parts_.observer->on_logits(sequence.request, sequence.position + i, {&observed_logits_[row * vocab], vocab});
}

void AttentionWorker::observe_route(std::int32_t layer, const State& state) {
  const auto k = static_cast<std::size_t>(top_k(layer));
  const std::size_t choices = static_cast<std::size_t>(state.hand_over.rows()) * k;
  observed_ids_.resize(choices);
  observed_weights_.resize(choices);
  parts_.backend->copy(observed_ids_.data(), state.hand_over.expert_ids.data, choices * sizeof(std::int32_t));
  parts_.backend->copy(observed_weights_.data(), state.hand_over.expert_weights.data, choices * sizeof(float));
  parts_.backend->synchronise();
  std::size_t first = 0;
  for (const SequenceRows& sequence : state.plan->sequences)
    for (std::int64_t i = 0; i < sequence.rows(); ++i, first += k)
      parts_.observer->on_route(sequence.request, sequence.position + i, layer, {&observed_ids_[first], k},
                                {&observed_weights_[first], k});
}

void AttentionWorker::commit(const Batch& batch) {
  scheduler_.commit(results_, failed_, failure_);
  results_.clear();
  failed_.clear();
  failure_ = Status::ok();
  ++stats_.steps;
  stats_.rows += batch.rows();
}

std::int64_t AttentionWorker::top_k(std::int32_t layer) const {
  return model_.is_routed(layer) ? model_.experts_per_token : 0;
}

}  // namespace tandem
