// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The engine without a backend: the same schedulers, caches and command graphs, on a virtual clock, from a seed. A bad
// schedule is replayed, not described. What rows compute is handed in (RowModel), what commands cost is a small
// function of their rows.
//
// Unlike the engine it is one thread, and all attention workers close a step together.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "base/rng.h"
#include "sched/scheduler.h"
#include "sim/step_walk.h"

namespace tandem {

// Time of a command: fixed, and for each row and each token that a row attends to.
struct CommandCosts {
  Nanoseconds attention = 20'000, attention_row = 100, context_token = 1;
  Nanoseconds experts = 20'000, experts_row = 100;
  Nanoseconds link = 5'000, link_row = 10;  // each way
  Nanoseconds embed = 1'000, head = 20'000;
  double jitter = 0;  // each time is stretched by a random part, up to this
};

// What stands in for model and KV memory of one attention worker.
class RowModel {
 public:
  virtual ~RowModel() = default;
  virtual void zero(std::span<const std::int32_t> blocks) = 0;
  virtual SequenceResult run(const SequenceRows& rows) = 0;
};

struct SimulationConfig {
  Layout layout;
  std::int32_t layers = 1;
  SchedulerConfig scheduler;  // of each attention worker; micro_batches are those of the pipeline
  KvSpace::Config kv;
  CommandCosts costs;
  std::uint64_t seed = 0;
};

class Simulation {
 public:
  // One model for each attention worker.
  Simulation(const SimulationConfig& config, std::vector<std::unique_ptr<RowModel>> models);

  // To the attention worker with the fewest requests.
  Status submit(Request request);
  void cancel(RequestId id);
  // One step of all workers, with hand-overs lost in it; false when there was nothing to do. Losses of micro-batches
  // without rows do nothing.
  bool step(std::span<const Loss> losses = {});
  std::vector<RequestEvent> take_events();

  Nanoseconds now() const { return clock_.now(); }
  void wait_until(Nanoseconds time) { clock_.advance_to(time); }  // nothing happens until then
  bool idle() const;
  const Lanes& lanes() const { return walk_.lanes(); }
  const StepTimes& last_step() const { return last_step_; }
  // Sums over all steps; end - begin is the time within steps.
  const StepTimes& total() const { return total_; }
  Scheduler& scheduler(std::int32_t a) { return *workers_[static_cast<std::size_t>(a)].scheduler; }
  void check_integrity() const;

 private:
  struct Worker {
    std::unique_ptr<Scheduler> scheduler;
    std::unique_ptr<RowModel> model;
    Batch batch;
    std::vector<SequenceResult> results;
    std::vector<RequestId> failed;
  };

  StepShape plan();
  Nanoseconds duration(const Command& command);
  const MicroBatch* plan_of(std::int32_t a, std::int32_t m) const;
  void draw(std::int32_t a, std::int32_t m);
  void give_up(std::int32_t a, std::int32_t m);
  void commit();

  SimulationConfig config_;
  Rng rng_;
  VirtualClock clock_;
  StepWalk walk_;
  Pipeline pipeline_;
  std::vector<Worker> workers_;
  std::map<RequestId, std::size_t> where_;  // requests that have not ended
  StepTimes last_step_, total_;
};

}  // namespace tandem
