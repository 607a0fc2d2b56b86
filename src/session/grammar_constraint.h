// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A grammar as what an answer may be, from where its reasoning ends. While the model thinks it may say anything but the
// tokens that end an answer, so that what follows does come.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "chat_format/reasoning_parser.h"
#include "sched/token_constraint.h"
#include "session/open_model.h"
#include "text/grammar.h"

namespace tandem {

class GrammarConstraint final : public TokenConstraint {
 public:
  // The model must outlive the constraint. start: of the answer, as its prompt left it.
  GrammarConstraint(Grammar grammar, const OpenModel& model, ReasoningParser::Start start);

  Status allowed(std::span<const std::int32_t> after, std::span<std::uint32_t> words) override;
  Status commit(std::int32_t token) override;
  bool complete() const override { return place_.start == ReasoningParser::Start::kContent && grammar_.complete(); }
  std::optional<ConstraintRecipe> recipe() const override;  // for constraint_maker.h

 private:
  struct Place {
    ReasoningParser::Start start;
    std::string said;  // of the reasoning: its last bytes, which may begin the mark that ends it
  };
  // Takes a token; true when it is the grammar's.
  bool advance(Place& place, std::int32_t token) const;

  Grammar grammar_;
  const OpenModel& model_;
  const ReasoningParser::Start start_;
  Place place_;
};

}  // namespace tandem
