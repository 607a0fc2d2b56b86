// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "tests/sim/random_simulation.h"

#include "base/rng.h"

namespace tandem {

namespace {

constexpr std::int32_t kVocab = 40;

class Dice {
 public:
  explicit Dice(std::uint64_t seed) : rng_(seed) {}
  std::int64_t below(std::int64_t bound) {
    return static_cast<std::int64_t>(rng_.below(static_cast<std::uint64_t>(bound)));
  }
  bool one_in(std::int64_t count) { return below(count) == 0; }
  std::int32_t token() { return static_cast<std::int32_t>(below(kVocab)); }

 private:
  Rng rng_;
};

StepCosts random_costs(Dice& dice) {
  StepCosts costs{.attention_ns_per_row = static_cast<double>(dice.below(500)),
                  .experts_ns_per_row = static_cast<double>(dice.below(500)),
                  .link_ns_per_row = static_cast<double>(dice.below(100)),
                  .fixed_ns = dice.below(1000),
                  .link_fixed_ns = dice.below(500),
                  .link_latency_ns = dice.below(3000),
                  .jitter = static_cast<double>(dice.below(3)) / 2};
  if (dice.one_in(10)) costs = {};  // everything happens at once
  if (dice.one_in(3)) {
    costs.loss_probability = dice.one_in(4) ? 0.3 : 0.02;
    costs.resend_after_ns = dice.below(20'000);
    costs.resends_max = static_cast<std::int32_t>(dice.below(3));
  }
  return costs;
}

// Prompts are starts of three streams, some with an end of their own, so that prefixes are found in the cache.
Request random_request(RequestId id, Dice& dice) {
  Request request{.id = id, .cache_salt = static_cast<std::uint64_t>(dice.below(2))};
  request.new_tokens_max = static_cast<std::int32_t>(1 + dice.below(dice.one_in(4) ? 150 : 20));
  Rng stream(static_cast<std::uint64_t>(dice.below(3)));
  request.prompt.resize(static_cast<std::size_t>(1 + dice.below(150)));
  for (std::int32_t& token : request.prompt) token = static_cast<std::int32_t>(stream.below(kVocab));
  if (dice.one_in(2)) request.prompt.back() = dice.token();
  if (dice.one_in(3)) request.stop_ids = {dice.token()};
  request.prompt_logits = dice.one_in(6);
  return request;
}

}  // namespace

SimulationConfig random_config(std::uint64_t seed) {
  Dice dice(seed);
  SimulationConfig config{.layers = static_cast<std::int32_t>(1 + dice.below(3)), .seed = seed};
  config.layout = {.attention_workers = static_cast<std::int32_t>(1 + dice.below(3)),
                   .ffn_workers = static_cast<std::int32_t>(1 + dice.below(3))};
  if (dice.one_in(6)) config.layout = {};  // local
  SchedulerConfig& scheduler = config.scheduler;
  scheduler = {.queue_max = 1 + dice.below(8), .sequences_max = 1 + dice.below(6), .vocab = kVocab};
  scheduler.rows_per_step_max = scheduler.sequences_max + (dice.one_in(4) ? dice.below(4) : dice.below(150));
  scheduler.prefill_chunk = 1 + dice.below(130);
  scheduler.context_tokens_max = 20 + dice.below(300);
  scheduler.micro_batches = static_cast<std::int32_t>(1 + dice.below(4));
  config.kv = {.blocks = 2 + dice.below(7), .prefix_cache = !dice.one_in(5)};
  config.costs = random_costs(dice);
  if (dice.one_in(2)) {
    config.drafts_max = static_cast<std::int32_t>(1 + dice.below(4));
    config.draft_accuracy = 0.7;
  }
  if (dice.one_in(4)) config.preemption_probability = 0.05;
  return config;
}

std::unique_ptr<Simulation> random_simulation(const SimulationConfig& config) {
  Dice dice(mix64(config.seed + 2));
  auto simulation = std::make_unique<Simulation>(config);
  const std::int64_t count = 2 + dice.below(12), gap_ns_max = 1 + dice.below(100'000);
  Nanoseconds time = 0;
  for (RequestId id = 1; id <= static_cast<RequestId>(count); ++id) {
    Request request = random_request(id, dice);
    request.arrival = time += dice.below(gap_ns_max);
    simulation->arrive(std::move(request));
    if (dice.one_in(8)) simulation->cancel(time + dice.below(300'000), id);
  }
  return simulation;
}

}  // namespace tandem
