// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "verify/self_check.h"

#include <algorithm>

#include "engine/speed.h"

namespace tandem {

namespace {

constexpr std::int64_t kPromptTokens = kBlockTokens + 6;  // attention walks more than one block
constexpr std::int32_t kNewTokens = 2;

}  // namespace

bool SelfCheckReport::passed() const {
  return !operators.empty() && std::ranges::all_of(operators, &ComparedOperator::passed);
}

void SelfCheck::connect(EngineConfig& config) {
  config.wrap_backend = [this, inner = std::move(config.wrap_backend)](std::unique_ptr<Backend> backend) {
    return comparison_.wrap(inner ? inner(std::move(backend)) : std::move(backend));
  };
}

SelfCheckReport SelfCheck::run(Engine& engine, std::uint64_t seed) {
  SelfCheckReport report;
  report.tokens = std::min(kPromptTokens, std::max<std::int64_t>(engine.config().context_tokens_max - kNewTokens, 1));
  const Prompts prompts = random_prompts(engine.model(), 1, report.tokens, seed);
  comparison_.compare(true);
  measure_decode(engine, prompts, kNewTokens);
  comparison_.compare(false);
  report.operators = comparison_.results();
  return report;
}

}  // namespace tandem
