// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "engine/attention/token_draws.h"

#include <algorithm>

namespace tandem {

TokenDraws::TokenDraws(Backend& backend, std::int64_t vocab, std::int64_t rows_max)
    : backend_(backend),
      mask_words_(static_cast<std::size_t>(vocab + 31) / 32),
      rows_max_(static_cast<std::size_t>(rows_max)) {}

void TokenDraws::draw(const MicroBatch& plan, const Tensor& logits, std::vector<SequenceResult>& results) {
  const auto is_plain = [](const SequenceRows& s) { return s.logits_rows() == (s.samples ? 1 : 0); };
  if (std::ranges::all_of(plan.sequences, is_plain)) return draw_together(std::span(&plan, 1), logits, results);
  std::int64_t row = 0;
  for (const SequenceRows& sequence : plan.sequences) {
    SequenceResult result{sequence.request, sequence.rows(), {}};
    row += sequence.logits_rows();
    if (sequence.samples) draw_in_turn(sequence, logits, row, result);
    results.push_back(std::move(result));
  }
}

void TokenDraws::draw_together(std::span<const MicroBatch> plans, const Tensor& logits,
                               std::vector<SequenceResult>& results) {
  const Sample all = operator_of(plans, logits);
  if (!all.rows.empty()) backend_.run(all);
  backend_.synchronise();
  take(plans, {}, results);
}

std::unique_ptr<Draw> TokenDraws::begin(std::span<const MicroBatch> plans, const Tensor& logits, const Tensor& ids) {
  return backend_.begin(operator_of(plans, logits), ids);
}

void TokenDraws::take(std::span<const MicroBatch> plans, std::span<const std::size_t> left_out,
                      std::vector<SequenceResult>& results) {
  std::size_t row = 0;
  for (const MicroBatch& plan : plans) {
    for (const SequenceRows& s : plan.sequences) {
      SequenceResult& result = results.emplace_back(SequenceResult{s.request, s.rows(), {}});
      if (!s.samples) continue;
      const std::size_t mine = row++;
      if (s.retracted || std::ranges::binary_search(left_out, mine)) {
        result.rows_kept = 0;
        if (!s.retracted) left_out_.insert(s.request);
        continue;
      }
      result.status = statuses_[mine];
      result.tokens.push_back(std::move(drawn_[mine]));
      if (!result.status) result.tokens.back().failed = true;
    }
  }
}

bool TokenDraws::needs_host(std::span<const MicroBatch> plans) const {
  if (left_out_.empty()) return false;
  const auto was_left_out = [this](const SequenceRows& s) { return left_out_.contains(s.request); };
  return std::ranges::any_of(plans,
                             [&](const MicroBatch& plan) { return std::ranges::any_of(plan.sequences, was_left_out); });
}

// Of a retracted row anything is drawn, for nobody.
Sample TokenDraws::operator_of(std::span<const MicroBatch> plans, const Tensor& logits) {
  static const SamplingParams kLikeliest{.temperature = 0};
  rows_.clear();
  statuses_.clear();
  drawn_.assign(static_cast<std::size_t>(logits.rows()), {});
  for (const MicroBatch& plan : plans) {
    for (const SequenceRows& s : plan.sequences) {
      if (!s.samples) continue;
      SampleRow row{s.sampling, s.prompt, s.answer, static_cast<std::uint64_t>(s.position + s.rows())};
      if (s.retracted) row = {&kLikeliest, {}, {}, 0};
      statuses_.push_back(s.retracted ? Status::ok() : allow(s, {}, rows_.size(), row));
      rows_.push_back(row);
    }
  }
  return {logits, rows_, drawn_};
}

// From the last row that is no draft on, until a draft is not what was drawn before it.
void TokenDraws::draw_in_turn(const SequenceRows& sequence, const Tensor& logits, std::int64_t logits_end,
                              SequenceResult& result) {
  std::vector<std::int32_t> answer;
  if (sequence.drafts > 0) answer.assign(sequence.answer.begin(), sequence.answer.end());
  for (std::int64_t i = sequence.rows() - 1 - sequence.drafts; i < sequence.rows(); ++i) {
    SampleRow row{sequence.sampling, sequence.prompt,
                  sequence.drafts > 0 ? std::span<const std::int32_t>(answer) : sequence.answer,
                  static_cast<std::uint64_t>(sequence.position + i + 1)};
    result.status = allow(sequence, row.answer.subspan(sequence.answer.size()), 0, row);
    SampledToken token;
    backend_.run(
        Sample{logits.slice_rows(logits_end - sequence.rows() + i, 1), std::span(&row, 1), std::span(&token, 1)});
    backend_.synchronise();
    if (!result.status) token.failed = true;
    result.rows_kept = i + 1;
    result.tokens.push_back(token);
    if (token.failed || i + 1 == sequence.rows() || sequence.tokens[i + 1] != token.id) return;
    answer.push_back(token.id);
  }
}

// Lets row draw only what the sequence's constraint allows after the answer and after. place: of the row among those
// that are drawn together.
Status TokenDraws::allow(const SequenceRows& sequence, std::span<const std::int32_t> after, std::size_t place,
                         SampleRow& row) {
  if (!sequence.constraint) return Status::ok();
  allowed_.resize(mask_words_ * rows_max_);
  const std::span<std::uint32_t> mine = std::span(allowed_).subspan(place * mask_words_, mask_words_);
  Status status = sequence.constraint->allowed(after, mine);
  if (status) row.allowed = mine;
  return status;
}

}  // namespace tandem
