// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "engine/auto_layout.h"

#include <algorithm>

#include "base/error.h"
#include "engine/settings/gpu_places.h"
#include "engine/speed.h"

namespace tandem {

namespace {

// A small batch: long enough for every micro-batch to have a sequence, short enough that nobody waits for it.
constexpr std::int64_t kSequences = 4, kPromptTokens = 32;
constexpr std::int32_t kNewTokens = 24;
constexpr std::int64_t kContextTokens = 128;

LayoutTrial try_layout(const Checkpoint& checkpoint, EngineConfig config, const Layout& layout) {
  config.layout = layout;
  fit_gpus(config);
  config.context_tokens_max = std::min<std::int64_t>(kContextTokens, read_config(checkpoint).context_tokens_max);
  config.sequences_max = kSequences;
  config.rows_per_step_max = 0;
  config.prefill_chunk = 0;
  config.kv_tokens = 2 * kSequences * kContextTokens;
  config.trace = nullptr;
  config.observer = nullptr;
  const std::unique_ptr<Engine> engine = Engine::start(checkpoint, config);
  const auto prompts = [&](std::uint64_t seed) {
    return random_prompts(engine->model(), kSequences, std::min(kPromptTokens, config.context_tokens_max / 2), seed);
  };
  const auto new_tokens = static_cast<std::int32_t>(std::min<std::int64_t>(kNewTokens, config.context_tokens_max / 2));
  measure_decode(*engine, prompts(0), 2);  // threads awake, pages touched
  const Speed prefill = measure_prefill(*engine, prompts(1));
  const Speed decode = measure_decode(*engine, prompts(1), new_tokens);
  return {layout, prefill.tokens_per_second(), decode.tokens_per_second(), prefill.seconds + decode.seconds};
}

}  // namespace

std::vector<Layout> candidate_layouts(std::int32_t cores) {
  std::vector<Layout> layouts{{}};
  for (const Layout& layout : {Layout{1, 1}, Layout{2, 1}, Layout{1, 2}, Layout{2, 2}})
    if (layout.workers() <= cores) layouts.push_back(layout);
  return layouts;
}

LayoutChoice choose_layout(const Checkpoint& checkpoint, const EngineConfig& config,
                           const std::vector<Layout>& candidates,
                           const std::function<void(const LayoutTrial&)>& listener) {
  if (candidates.empty()) throw Error(ErrorCode::kInvalidArgument, "no layout to choose from");
  LayoutChoice choice;
  for (const Layout& layout : candidates) {
    choice.trials.push_back(try_layout(checkpoint, config, layout));
    if (listener) listener(choice.trials.back());
  }
  choice.layout = std::ranges::min_element(choice.trials, {}, &LayoutTrial::seconds)->layout;
  return choice;
}

}  // namespace tandem
