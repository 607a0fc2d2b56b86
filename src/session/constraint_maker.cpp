// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "session/constraint_maker.h"

#include <algorithm>

#include "base/format.h"

namespace tandem {
namespace {

constexpr std::size_t kKeptMax = 16;

// The front has compiled the same within limits of its own, perhaps on a faster machine: these only bound what can
// happen.
constexpr GrammarLimits kLimits{.bytes_max = 256 << 10, .depth_max = 128, .ms_max = 10'000};

template <class E>
E read(const char* what, std::uint8_t value, E last) {
  if (value > static_cast<std::uint8_t>(last))
    throw Error(ErrorCode::kInvalidData,
                format("{} of a constraint is {}, limit is {}", what, value, static_cast<std::uint8_t>(last)));
  return static_cast<E>(value);
}

}  // namespace

std::unique_ptr<TokenConstraint> ConstraintMaker::make(const ConstraintRecipe& recipe) {
  const GrammarSource source{read("kind", recipe.kind, GrammarKind::kLark), recipe.source};
  const auto start = read("start", recipe.start, ReasoningParser::Start::kInside);
  if (!model_) model_.emplace(open_model(path_));
  if (!vocabulary_) vocabulary_.emplace(model_->tokenizer, model_->stop_ids);
  return std::make_unique<GrammarConstraint>(grammar(source).clone(), *model_, start);
}

const Grammar& ConstraintMaker::grammar(const GrammarSource& source) {
  const auto found = std::ranges::find(kept_, source, &Grammar::source);
  if (found != kept_.end()) {
    kept_.splice(kept_.begin(), kept_, found);
    return kept_.front();
  }
  kept_.push_front(vocabulary_->compile(source.kind, source.text, kLimits));
  if (kept_.size() > kKeptMax) kept_.pop_back();
  return kept_.front();
}

}  // namespace tandem
