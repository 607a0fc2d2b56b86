// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// --layout auto: the layouts that the machine has cores for, each tried for a moment with the model itself, and the
// fastest one taken. No model of the machine: what is measured is what will run.
#pragma once

#include <functional>
#include <vector>

#include "engine/engine.h"

namespace tandem {

struct LayoutTrial {
  Layout layout;
  double prefill_tokens_per_second = 0;
  double decode_tokens_per_second = 0;
  double seconds = 0;  // for the trial's whole batch: what is compared
};

struct LayoutChoice {
  Layout layout;
  std::vector<LayoutTrial> trials;  // in the order they were made
};

// local and those with at most one worker per core, up to 2A2F.
std::vector<Layout> candidate_layouts(std::int32_t cores);

// Starts and stops an engine per candidate, with config's backend, threads and micro-batches; listener hears of each
// trial. Throws Error as Engine::start does.
LayoutChoice choose_layout(const Checkpoint& checkpoint, const EngineConfig& config,
                           const std::vector<Layout>& candidates,
                           const std::function<void(const LayoutTrial&)>& listener = {});

}  // namespace tandem
