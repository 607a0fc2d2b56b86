// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Decoding steps of an attention worker that come again and again: given as a whole (recorded_steps.h), and where the
// backend computes beside the host, given ahead, before the tokens of the step before are known.
#include <bit>
#include <unordered_map>

#include "base/format.h"
#include "engine/attention/attention_worker.h"
#include "engine/attention/recorded_steps.h"
#include "engine/attention/token_draws.h"

namespace tandem {

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
    if (recorded_.stalled(epoch) && redo(batch)) {
      draw = begin_draw(batch);
      fill(*next);
      next_epoch = give_behind(batch, *next);
      left_out = draw->finish();
    }
    const bool given_up = !failed_.empty();
    if (!given_up) draws_.take(batch.micro_batches, left_out, results_);
    commit(batch);
    publish_events();
    scheduler_.settle(*next);
    batch = std::move(*next);
    if (given_up) return keep_nothing(batch), true;
    if (!repeats_) return fill(batch), false;
    epoch = next_epoch;
  }
  const Tensor logits = logits_.slice_rows(0, batch.rows());
  recorded_.await_launch();
  draws_.draw_together(batch.micro_batches, logits, results_);
  if (!recorded_.stalled(epoch)) return true;
  results_.clear();
  if (redo(batch)) draws_.draw_together(batch.micro_batches, logits, results_);
  return true;
}

std::optional<Batch> AttentionWorker::plan_ahead(const Batch& batch) {
  if (!runs_ahead() || stopping_ || inbox_waits() || draws_.needs_host(batch.micro_batches)) return std::nullopt;
  return scheduler_.plan_ahead();
}

// The epoch that it is given as, where an FFN worker takes part.
std::uint64_t AttentionWorker::give(const Batch& step) {
  return recorded_.give(kind_of(step), [&] { record(step); });
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
  recorded_.await_launch();  // drawing may take memory
  return draws_.begin(batch.micro_batches, logits_.slice_rows(0, rows), Tensor(drawn_ids_.data(), DType::kI32, {rows}));
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

// Gives a step again in which somebody stalled, when all that was given has ended. False: it went wrong too often, and
// its requests fail.
bool AttentionWorker::redo(const Batch& batch) {
  for (std::int32_t i = 0; i < parts_.config.resends_max && !stopping_; ++i) {
    ++stats_.resends;
    parts_.backend->synchronise();
    fill(batch);
    const std::uint64_t epoch = give(batch);
    parts_.backend->synchronise();
    if (!recorded_.stalled(epoch)) return true;
  }
  failure_ = Status(ErrorCode::kUnavailable,
                    format("the FFN worker did not do its part of a step within {} ms, given {} times; from now on "
                           "hand-overs go in frames",
                           parts_.config.resend_after / kMillisecond, parts_.config.resends_max + 1));
  for (const MicroBatch& micro_batch : batch.micro_batches)
    for (const SequenceRows& sequence : micro_batch.sequences) failed_.push_back(sequence.request);
  recorded_.leave_seam();
  return false;
}

// Of a step that ran ahead of one that was given up.
void AttentionWorker::keep_nothing(const Batch& batch) {
  for (const MicroBatch& micro_batch : batch.micro_batches)
    for (const SequenceRows& s : micro_batch.sequences) results_.push_back({s.request, 0, {}});
}

// A step that comes again and again: every sequence decodes one token, all in this process, and nobody looks inside.
bool AttentionWorker::is_repeating(const Batch& batch) const {
  if (!recorded_.possible()) return false;
  if (parts_.observer || parts_.track || batch.rows() > logits_.rows()) return false;
  for (std::size_t m = 0; m < batch.micro_batches.size(); ++m) {
    const Tensor& embedded = states_[m].inputs->rows().embedded;
    if (embedded && embedded.rows() > 0) return false;
    for (const SequenceRows& s : batch.micro_batches[m].sequences)
      if (s.rows() != 1 || s.logits_rows() != 1 || !s.samples) return false;
  }
  return true;
}

// Whether a repeating step can be given to both sides without frames. The first of its kind goes in frames.
bool AttentionWorker::is_prepared(const Batch& batch) {
  const RecordedSteps::Kind kind = kind_of(batch);
  if (!recorded_.noted(kind)) return false;
  for (std::size_t m = 0; m < batch.micro_batches.size(); ++m)
    if (!link_->frame_free(static_cast<std::int32_t>(m))) return false;
  repeats_ = true;  // as it is recorded
  return recorded_.prepare(kind, [&] { record(batch); });
}

// Memory is the same in every step; contexts count by powers of two.
RecordedSteps::Kind AttentionWorker::kind_of(const Batch& batch) const {
  const auto magnitude = [](std::int64_t tokens) -> std::int64_t {
    return static_cast<std::int64_t>(std::bit_width(static_cast<std::uint64_t>(tokens)));
  };
  RecordedSteps::Kind kind;
  kind.rows.assign(states_.size(), 0);
  for (std::size_t m = 0; m < batch.micro_batches.size(); ++m) {
    const RowBatch& rows = states_[m].inputs->rows();
    kind.rows[m] = rows.rows();
    kind.key.insert(kind.key.end(), {rows.rows(), rows.block_table.shape[1], magnitude(rows.context_tokens),
                                     magnitude(rows.window_tokens)});
  }
  return kind;
}

}  // namespace tandem
