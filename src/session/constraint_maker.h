// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Constraints of answers, made again from what they were made from (GrammarConstraint::recipe): for the attention
// workers of a deployment, whose front compiled them first. Model and vocabulary are read when the first one is wanted;
// a worker that never makes any does without. The grammars used last are kept, since the choices of a request share
// one, and after a loss all requests come again.
#pragma once

#include <list>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "session/grammar_constraint.h"

namespace tandem {

class ConstraintMaker {
 public:
  // model: path of a checkpoint. Nothing is read yet.
  explicit ConstraintMaker(std::string model) : path_(std::move(model)) {}

  // At its beginning. The maker must outlive it. Throws Error: kInvalidData for numbers that mean nothing, else what
  // open_model and GrammarVocabulary::compile throw.
  std::unique_ptr<TokenConstraint> make(const ConstraintRecipe& recipe);

 private:
  const Grammar& grammar(const GrammarSource& source);

  const std::string path_;
  std::optional<OpenModel> model_;
  std::optional<GrammarVocabulary> vocabulary_;
  std::list<Grammar> kept_;  // used last in front
};

}  // namespace tandem
