// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "session/grammar_constraint.h"

#include <algorithm>
#include <utility>

namespace tandem {

namespace {

using Start = ReasoningParser::Start;

void set_bit(std::span<std::uint32_t> words, std::int32_t token, bool value) {
  const auto at = static_cast<std::size_t>(token) / 32;
  if (token < 0 || at >= words.size()) return;
  const std::uint32_t bit = 1U << (token % 32);
  words[at] = value ? words[at] | bit : words[at] & ~bit;
}

}  // namespace

GrammarConstraint::GrammarConstraint(Grammar grammar, const OpenModel& model, ReasoningParser::Start start)
    : grammar_(std::move(grammar)), model_(model), start_(start), place_{start, {}} {}

bool GrammarConstraint::advance(Place& place, std::int32_t token) const {
  const Tokenizer& tokenizer = model_.tokenizer;
  if (place.start == Start::kEither)
    place.start = tokenizer.find_token(kThinkBegin) == token ? Start::kInside : Start::kContent;
  else if (place.start == Start::kInside)
    place.said += tokenizer.token_bytes(token);
  if (place.start == Start::kContent) return true;
  if (place.said.find(kThinkEnd) != std::string::npos) place.start = Start::kContent;
  const std::size_t kept = std::min(place.said.size(), kThinkEnd.size() - 1);
  place.said.erase(0, place.said.size() - kept);
  return false;
}

Status GrammarConstraint::allowed(std::span<const std::int32_t> after, std::span<std::uint32_t> words) {
  Place place = place_;
  while (!after.empty() && place.start != Start::kContent && !advance(place, after.front())) after = after.subspan(1);
  if (place.start == Start::kInside) {
    std::ranges::fill(words, ~0U);
    for (const std::int32_t id : model_.stop_ids) set_bit(words, id, false);
    return Status::ok();
  }
  Status status = grammar_.allowed(after, words);
  if (!status) return status;
  if (place.start == Start::kEither)
    if (const auto think = model_.tokenizer.find_token(kThinkBegin)) set_bit(words, *think, true);
  if (std::ranges::all_of(words, [](std::uint32_t word) { return word == 0; }))
    return {ErrorCode::kInvalidData, "grammar: no token of the model can go on"};
  return Status::ok();
}

Status GrammarConstraint::commit(std::int32_t token) {
  return advance(place_, token) ? grammar_.accept(token) : Status::ok();
}

std::optional<ConstraintRecipe> GrammarConstraint::recipe() const {
  return ConstraintRecipe{.kind = static_cast<std::uint8_t>(grammar_.source().kind),
                          .start = static_cast<std::uint8_t>(start_),
                          .source = grammar_.source().text};
}

}  // namespace tandem
