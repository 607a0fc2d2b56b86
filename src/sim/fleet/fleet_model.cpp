// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "sim/fleet/fleet_model.h"

#include <memory>
#include <optional>
#include <utility>

#include "base/format.h"
#include "base/rng.h"
#include "checkpoint/checkpoint.h"
#include "engine/engine.h"
#include "roles/deployment_engine.h"

namespace tandem {

namespace {

constexpr std::int64_t kHeartbeatMs = 100, kLostAfterMs = 1'000, kRepairMs = 8'000, kResendAfterMs = 60;

std::vector<Request> some_requests(std::int32_t vocab) {
  std::vector<Request> requests;
  Rng rng(1);
  for (int i = 0; i < 10; ++i) {
    Request request;
    // Long prompts, prompts with a beginning in common, and answers that outgrow the blocks they were promised.
    const std::uint64_t length = i % 3 == 0 ? 3 + rng.below(120) : i % 3 == 1 ? 3 + rng.below(40) : 45 + rng.below(18);
    for (std::uint64_t t = 0; t < length; ++t)
      request.prompt.push_back(static_cast<std::int32_t>(rng.below(static_cast<std::uint64_t>(vocab))));
    if (i % 3 == 1) request.prompt.insert(request.prompt.begin(), 70, 5);
    request.new_tokens_max = static_cast<std::int32_t>((i % 3 == 2 ? 80 : 4) + rng.below(28));
    request.sampling.temperature = i % 2 == 0 ? 0.f : 0.9f;
    request.sampling.seed = 100 + static_cast<std::uint64_t>(i);
    requests.push_back(std::move(request));
  }
  return requests;
}

std::vector<std::int32_t> answer_of(Engine& engine, Request request) {
  auto events = std::make_shared<EventStream>();
  request.id = engine.next_id();
  std::vector<std::int32_t> tokens;
  if (const Status status = engine.submit(std::move(request), events); !status)
    throw Error(status.error().code(), status.error().message());
  for (bool ended = false; !ended;) {
    const std::optional<RequestEvent> event = events->pop(60 * kSecond);
    if (!event || event->finish == FinishReason::kError) throw Error(ErrorCode::kInternal, "no answer to compare with");
    for (const SampledToken& token : event->tokens) tokens.push_back(token.id);
    ended = event->finish != FinishReason::kNone;
  }
  return tokens;
}

}  // namespace

FleetModel FleetModel::load(const std::string& checkpoint, std::int32_t attention, std::int32_t ffn,
                            std::int32_t replicas) {
  FleetModel m;
  Deployment& d = m.deployment;
  d.name = "simulated";
  d.model = checkpoint;
  d.engine = {.device = "cpu",
              .kv_dtype = "f32",
              .micro_batches = 2,
              .rows_per_micro_batch_max = 32,
              .sequences_max = 8,
              .context_tokens_max = 256,
              .kv_tokens = 320};
  d.split.experts = ffn;
  d.link.heartbeat_ms = kHeartbeatMs;
  d.link.lost_after_ms = kLostAfterMs;
  d.link.repair_ms_max = kRepairMs;
  const std::int32_t workers = attention + ffn + replicas;
  for (std::int32_t rank = 0; rank < workers; ++rank) {
    WorkerPlace place{.rank = rank, .host = format("host{}", rank), .port = 7000, .devices = {}};
    if (rank >= attention + ffn) place.replica_of = attention + (rank - attention - ffn) % ffn;
    (rank < attention ? d.attention : d.ffn).push_back(place);
  }
  for (std::int32_t rank = 0; rank < workers; ++rank) {
    LoadedWorker worker = load_worker(d, rank, nullptr);
    worker.config.threads = worker.config.layout.workers();  // one each: no thread is anybody else's
    worker.config.resend_after_ms = kResendAfterMs;
    m.workers.push_back(std::move(worker));
  }
  m.requests = some_requests(m.workers.front().model->config().vocab);
  EngineConfig alone = engine_config(d, 0);
  alone.layout = {};
  alone.kv_tokens = 2048;
  const std::unique_ptr<Engine> engine = Engine::start(*Checkpoint::open(checkpoint), alone);
  for (const Request& request : m.requests) m.answers.push_back(answer_of(*engine, request));
  return m;
}

}  // namespace tandem
