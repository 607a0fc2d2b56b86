// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "sim/simulation.h"

#include <algorithm>

#include "base/check.h"

namespace tandem {

namespace {

std::int64_t context_tokens(const MicroBatch& plan) {
  std::int64_t tokens = 0;
  for (const SequenceRows& rows : plan.sequences)  // position + 1 … position + rows
    tokens += rows.rows() * rows.position + rows.rows() * (rows.rows() + 1) / 2;
  return tokens;
}

void add(StepTimes& total, const StepTimes& step) {
  total.end += step.duration();
  total.lanes.resize(step.lanes.size());
  for (std::size_t i = 0; i < step.lanes.size(); ++i) {
    total.lanes[i].busy += step.lanes[i].busy;
    total.lanes[i].bubbles += step.lanes[i].bubbles;
  }
}

}  // namespace

Simulation::Simulation(const SimulationConfig& config, std::vector<std::unique_ptr<RowModel>> models)
    : config_(config), rng_(config.seed), walk_(config.layout, clock_) {
  TANDEM_CHECK(std::ssize(models) == config.layout.attention_workers, "one model for each attention worker");
  for (std::unique_ptr<RowModel>& model : models)
    workers_.push_back({.scheduler = std::make_unique<Scheduler>(config.scheduler, config.kv),
                        .model = std::move(model),
                        .batch = {},
                        .results = {},
                        .failed = {}});
}

Status Simulation::submit(Request request) {
  const auto load = [](const Worker& worker) {
    const Scheduler::Load load = worker.scheduler->load();
    return load.waiting + load.running;
  };
  const auto least = std::min_element(workers_.begin(), workers_.end(),
                                      [&](const Worker& a, const Worker& b) { return load(a) < load(b); });
  request.arrival = clock_.now();
  const RequestId id = request.id;
  Status submitted = least->scheduler->submit(std::move(request));
  if (submitted) where_[id] = static_cast<std::size_t>(least - workers_.begin());
  return submitted;
}

void Simulation::cancel(RequestId id) {
  if (const auto worker = where_.find(id); worker != where_.end()) workers_[worker->second].scheduler->cancel(id);
}

bool Simulation::step(std::span<const Loss> losses) {
  const StepShape shape = plan();
  const bool empty = std::ranges::none_of(shape.occupied, [](bool occupied) { return occupied; });
  if (!empty) {
    last_step_ = walk_.run(pipeline_.graph(shape), [this](const Command& command) { return duration(command); }, losses,
                           {.done =
                                [this](const Command& command) {
                                  if (command.kind == CommandKind::kHead) draw(command.attention, command.micro_batch);
                                },
                            .given_up = [this](std::int32_t a, std::int32_t m) { give_up(a, m); }});
    add(total_, last_step_);
  }
  commit();
  return !empty;
}

StepShape Simulation::plan() {
  const std::int32_t micro_batches = config_.scheduler.micro_batches;
  StepShape shape{config_.layers,
                  micro_batches,
                  config_.layout.attention_workers,
                  config_.layout.local() ? 1 : config_.layout.ffn_workers,
                  {}};
  for (Worker& worker : workers_) {
    worker.batch = worker.scheduler->plan();
    worker.results.clear();
    worker.failed.clear();
    worker.model->zero(worker.batch.fresh.blocks);
    for (std::int32_t m = 0; m < micro_batches; ++m)
      shape.occupied.push_back(m < static_cast<std::int32_t>(worker.batch.micro_batches.size()));
  }
  return shape;
}

const MicroBatch* Simulation::plan_of(std::int32_t a, std::int32_t m) const {
  const std::vector<MicroBatch>& plans = workers_[static_cast<std::size_t>(a)].batch.micro_batches;
  return m < static_cast<std::int32_t>(plans.size()) ? &plans[static_cast<std::size_t>(m)] : nullptr;
}

Nanoseconds Simulation::duration(const Command& command) {
  const CommandCosts& c = config_.costs;
  std::int64_t rows = 0, context = 0;
  for (std::int32_t a = 0; a < config_.layout.attention_workers; ++a) {
    const MicroBatch* plan = plan_of(a, command.micro_batch);
    if (!plan || (command.attention >= 0 && command.attention != a)) continue;
    rows += plan->rows();
    context += context_tokens(*plan);
  }
  Nanoseconds time = 0;
  switch (command.kind) {
    case CommandKind::kEmbed:
      time = c.embed;
      break;
    case CommandKind::kAttention:
      time = c.attention + c.attention_row * rows + c.context_token * context;
      break;
    case CommandKind::kHandOver:
    case CommandKind::kReturn:
      time = config_.layout.local() ? 0 : c.link + c.link_row * rows;
      break;
    case CommandKind::kExperts:
      time = c.experts + c.experts_row * rows;
      break;
    case CommandKind::kHead:
      time = c.head;
      break;
  }
  return time + static_cast<Nanoseconds>(static_cast<double>(time) * c.jitter * rng_.uniform());
}

void Simulation::draw(std::int32_t a, std::int32_t m) {
  Worker& worker = workers_[static_cast<std::size_t>(a)];
  for (const SequenceRows& rows : plan_of(a, m)->sequences) worker.results.push_back(worker.model->run(rows));
}

void Simulation::give_up(std::int32_t a, std::int32_t m) {
  for (const SequenceRows& rows : plan_of(a, m)->sequences)
    workers_[static_cast<std::size_t>(a)].failed.push_back(rows.request);
}

void Simulation::commit() {
  for (Worker& worker : workers_) {
    if (worker.batch.empty()) {
      worker.scheduler->abandon();
      continue;
    }
    worker.scheduler->commit(worker.results, worker.failed,
                             worker.failed.empty()
                                 ? Status()
                                 : Status(ErrorCode::kUnavailable, "FFN workers did not answer, in the simulation"));
  }
}

std::vector<RequestEvent> Simulation::take_events() {
  std::vector<RequestEvent> events;
  for (Worker& worker : workers_)
    for (RequestEvent& event : worker.scheduler->take_events()) events.push_back(std::move(event));
  for (const RequestEvent& event : events)
    if (event.finish != FinishReason::kNone) where_.erase(event.id);
  return events;
}

bool Simulation::idle() const {
  return std::ranges::all_of(workers_, [](const Worker& worker) { return worker.scheduler->idle(); });
}

void Simulation::check_integrity() const {
  for (const Worker& worker : workers_) worker.scheduler->check_integrity();
}

}  // namespace tandem
