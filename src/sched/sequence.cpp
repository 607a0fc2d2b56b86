// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "sched/sequence.h"

#include <algorithm>

#include "base/check.h"
#include "base/format.h"

namespace tandem {

Sequence::Sequence(Request from, std::int64_t context_tokens_max, ContentIds& content_ids)
    : request(std::move(from)),
      tokens(std::move(request.prompt)),
      prompt_tokens(size()),
      tokens_max(std::min(context_tokens_max, prompt_tokens + request.new_tokens_max)) {
  request.prompt.clear();
  tokens.insert(tokens.end(), request.answer.begin(), request.answer.end());
  request.answer.clear();
  if (!request.embedded.empty()) spell_prefix(content_ids);
}

void Sequence::spell_prefix(ContentIds& content_ids) {
  prefix_ = tokens;
  for (const EmbeddedSpan& span : request.embedded) {
    const std::optional<ContentIds::Keys> keys = content_ids.keys(span);
    shares_prefix &= keys.has_value();
    if (!keys) continue;
    const auto first = prefix_.begin() + span.position;
    std::fill(first, first + span.count, keys->others);
    *first = keys->first;
  }
}

std::int64_t Sequence::blocks_to_come() const {
  const std::int64_t positions_max = tokens_max - 1;  // the last token of all is never computed
  const std::int64_t soon = std::min(size() + kBlockTokens, positions_max);
  return KvSpace::blocks_needed(table, std::max<std::int64_t>(0, soon - table.tokens));
}

SequenceRows Sequence::rows(std::int64_t count, std::span<const std::int32_t> drafts) const {
  TANDEM_CHECK(count >= 1 && count <= pending(), format("{} rows of {} pending", count, pending()));
  TANDEM_CHECK(drafts.empty() || count == pending(), "drafts follow the last token");
  const auto first = tokens.begin() + computed;
  SequenceRows rows{.request = request.id, .position = computed, .tokens = {first, first + count}};
  rows.tokens.insert(rows.tokens.end(), drafts.begin(), drafts.end());
  rows.drafts = std::ssize(drafts);
  rows.samples = count == pending();
  const bool observed = request.prompt_logits && computed < prompt_tokens;
  rows.logits_from = observed || !drafts.empty() ? 0 : rows.rows() - (rows.samples ? 1 : 0);
  describe(rows);
  rows.prompt = prompt();
  rows.answer = answer();
  return rows;
}

SequenceRows Sequence::row_ahead() const {
  TANDEM_CHECK(decoding(), format("a row ahead of {} pending", pending()));
  SequenceRows row{.request = request.id, .position = computed + 1, .tokens = {kTokenToCome}, .samples = true};
  describe(row);
  return row;
}

void Sequence::settle(SequenceRows& row) const {
  row.retracted = finished || computed != row.position;
  row.tokens = {row.retracted ? kTokenToCome : tokens.back()};
  row.prompt = prompt();
  row.answer = answer();
}

void Sequence::describe(SequenceRows& rows) const {
  rows.blocks = table.blocks;
  rows.window_blocks = table.window_blocks;
  rows.sampling = &request.sampling;
  rows.constraint = request.constraint.get();
  rows.embedded = request.embedded;
}

FinishReason Sequence::append(const SampledToken& token) {
  if (token.failed) return FinishReason::kError;
  tokens.push_back(token.id);
  if (!request.embedded.empty()) prefix_.push_back(token.id);
  if (std::ranges::find(request.stop_ids, token.id) != request.stop_ids.end()) return FinishReason::kStop;
  if (request.constraint) {
    failure = request.constraint->commit(token.id);
    if (!failure) return FinishReason::kError;
    if (request.constraint->complete()) return FinishReason::kStop;
  }
  return size() >= tokens_max ? FinishReason::kLength : FinishReason::kNone;
}

std::vector<SampledToken> Sequence::advance(const SequenceResult& result, FinishReason& finish) {
  const std::int64_t reached = computed + result.rows_kept;
  TANDEM_CHECK(result.rows_kept >= 0 && reached <= table.tokens,
               format("kept {} rows of {}", result.rows_kept, table.tokens - computed));
  const std::int64_t expected = std::max<std::int64_t>(0, reached - size() + 1);
  TANDEM_CHECK(static_cast<std::int64_t>(result.tokens.size()) == expected,
               format("request {}: {} rows kept, {} tokens, {} expected", request.id, result.rows_kept,
                      result.tokens.size(), expected));
  std::vector<SampledToken> news;
  finish = FinishReason::kNone;
  for (const SampledToken& token : result.tokens) {
    finish = append(token);
    if (finish != FinishReason::kError) news.push_back(token);
    if (finish != FinishReason::kNone) break;
  }
  computed = std::min(reached, size());  // an answer that ended among accepted drafts is shorter than what was computed
  return news;
}

RequestEvent Sequence::event(FinishReason finish) const {
  return {.id = request.id,
          .finish = finish,
          .prompt_tokens = prompt_tokens,
          .cached_tokens = cached_tokens,
          .preemptions = preemptions};
}

void Sequence::check_integrity(bool in_flight) const {
  TANDEM_CHECK(in_flight ? computed < table.tokens : computed == table.tokens,
               format("{} computed, room for {}", computed, table.tokens));
  TANDEM_CHECK(finished || (pending() >= 1 && size() < tokens_max),
               format("{} of {} tokens, {} computed", size(), tokens_max, computed));
  TANDEM_CHECK(table.published <= computed / kBlockTokens, "more is published than computed");
}

}  // namespace tandem
