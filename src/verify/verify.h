// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Runs a checkpoint's recorded prompts through a whole engine and compares: logits of every row, expert choices, greedy
// tokens. The same code behind "tandem verify" and the golden tests.
#pragma once

#include <limits>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "verify/expectations.h"

namespace tandem {

struct PromptVerdict {
  std::string name;
  std::int64_t tokens = 0;
  double logits_max_abs = 0;  // over prompt and continuation, up to the first other token
  double logits_rms = 0;
  std::int64_t routes = 0;  // (position, layer) pairs compared
  std::int64_t routes_different = 0;
  std::int64_t routes_same = std::numeric_limits<std::int64_t>::max();  // positions before the first other choice
  double route_weight_max_abs = 0;  // where the experts agree; of weights above one as a part of them
  std::int64_t greedy_same = 0;     // tokens before the first other one
  std::int64_t greedy_total = 0;
  std::vector<std::string> faults;  // what is outside the limits; empty: passed
};

struct Verdict {
  std::vector<PromptVerdict> prompts;
  bool f32 = false;                             // which limits were held
  Activations activations = Activations::kF32;  // rounded ones have their own, whatever the KV
  bool passed() const;
};

// KV in f32 is held to the f32 limits, KV in bf16 to the bf16 limits. The prompts run together, as one batch.
Verdict verify(const Checkpoint& checkpoint, const Expectations& expectations, EngineConfig config);

}  // namespace tandem
