// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// How fast a running engine is: synthetic requests in a batch, prefill and decode timed apart. What the choice of a
// layout and the benchmark stand on. The engine should have nothing else to do.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "engine/engine.h"

namespace tandem {

// Adds up the work of every operator that an engine's backends run. Connect it before the engine starts; it must
// outlive the engine.
class WorkMeter {
 public:
  void connect(EngineConfig& config);
  Work total() const { return {flops_.load(), bytes_read_.load(), bytes_written_.load()}; }

 private:
  std::atomic<std::int64_t> flops_{0}, bytes_read_{0}, bytes_written_{0};
};

using Prompts = std::vector<std::vector<std::int32_t>>;

// Random tokens of the model; the same for the same seed.
Prompts random_prompts(const ModelConfig& model, std::int64_t count, std::int64_t tokens, std::uint64_t seed);

struct Speed {
  double seconds = 0;
  std::int64_t tokens = 0;
  Work work;  // zero without a meter

  double tokens_per_second() const { return static_cast<double>(tokens) / seconds; }
};

// All prompts together until each has its first token. Throws Error when a request fails.
Speed measure_prefill(Engine& engine, const Prompts& prompts, const WorkMeter* meter = nullptr);
// From when all are seen to have begun until all have new_tokens; the whole run if it ends before that is seen. After
// measure_prefill of the same prompts the prefix cache makes the way there short.
Speed measure_decode(Engine& engine, const Prompts& prompts, std::int32_t new_tokens, const WorkMeter* meter = nullptr);

}  // namespace tandem
