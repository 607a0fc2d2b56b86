// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What a request's answer may be, token by token: an interface, so that neither scheduler nor engine knows of grammars.
// Its state is that of the answer so far and belongs to the sequence: it goes ahead when a token is committed, and
// nothing else changes it. Hence preemption and recomputation, which take KV and not tokens, do not touch it, and a
// step that was not committed can be run again.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "base/error.h"

namespace tandem {

// What a constraint was made from, as whoever makes such constraints understands it: another process that has the same
// maker and the same model makes the same constraint, at its beginning.
struct ConstraintRecipe {
  std::uint8_t kind = 0;   // of source
  std::uint8_t start = 0;  // where in an answer it begins to hold
  std::string source;

  bool operator==(const ConstraintRecipe&) const = default;
};

class TokenConstraint {
 public:
  virtual ~TokenConstraint() = default;
  // Sets words: bit i says whether token i may come after the answer so far and then after, which are tokens that are
  // not committed. An error ends the request.
  virtual Status allowed(std::span<const std::int32_t> after, std::span<std::uint32_t> words) = 0;
  // A token of the answer is committed. An error ends the request.
  virtual Status commit(std::int32_t token) = 0;
  // Nothing may follow: the answer is at its end.
  virtual bool complete() const = 0;
  // None: it cannot be made elsewhere.
  virtual std::optional<ConstraintRecipe> recipe() const { return std::nullopt; }
};

}  // namespace tandem
