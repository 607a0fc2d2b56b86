// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Whether a loaded model computes here what it should: a short seeded prompt goes through the whole engine, and
// operators of every kind, with the model's own weights, are run again by the reference backend.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/engine.h"
#include "verify/operator_comparison.h"

namespace tandem {

struct SelfCheckReport {
  std::vector<ComparedOperator> operators;
  std::int64_t tokens = 0;  // of the prompt
  bool passed() const;      // false too when nothing was compared
};

// Connect it before the engine starts; it must outlive the engine, and the checkpoint must outlive it.
class SelfCheck {
 public:
  explicit SelfCheck(const Checkpoint& checkpoint) : comparison_(checkpoint, read_config(checkpoint)) {}

  void connect(EngineConfig& config);
  // The engine should have nothing else to do. Throws Error when the prompt fails.
  SelfCheckReport run(Engine& engine, std::uint64_t seed);

 private:
  OperatorComparison comparison_;
};

}  // namespace tandem
