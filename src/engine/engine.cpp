// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "engine/engine.h"

#include <algorithm>

#include "base/format.h"
#include "engine/settings/gpu_places.h"
#include "engine/worker_parts.h"

namespace tandem {

std::unique_ptr<Engine> Engine::start(const Checkpoint& checkpoint, const EngineConfig& config,
                                      const ProgressListener& listener) {
  const ModelConfig model = read_config(checkpoint);
  const EngineConfig limited = resolve_limits(config, model);
  std::unique_ptr<Engine> engine(new Engine(resolve(limited, model, memory_uses(limited, checkpoint, model)), model));
  engine->load(checkpoint, listener);
  engine->start_vision();
  engine->local_->start();
  return engine;
}

std::unique_ptr<Engine> Engine::over(std::unique_ptr<Workers> workers, const EngineConfig& config,
                                     const Checkpoint& checkpoint, const ProgressListener& listener) {
  std::unique_ptr<Engine> engine(new Engine(config, read_config(checkpoint)));
  engine->workers_ = std::move(workers);
  engine->takers_ = engine->workers_->takers();
  if (!engine->sees()) return engine;
  LoadProgress progress{.bytes_done = 0, .bytes_total = total_bytes(measure_vision(checkpoint))};
  engine->load_tower(checkpoint, config.threads, [&](std::int64_t bytes) {
    progress.bytes_done += bytes;
    if (listener) listener(progress);
  });
  engine->start_vision();
  return engine;
}

void Engine::start_vision() {
  if (vision_) vision_thread_ = std::thread([this] { vision_->run(); });
}

Engine::~Engine() {
  stop();
}

void Engine::load(const Checkpoint& checkpoint, const ProgressListener& listener) {
  LoadProgress progress;
  for (const ModelShare& share : shares(config_.layout, model_.experts))
    progress.bytes_total +=
        total_bytes(measure_share(checkpoint, share)) * (share.attention ? attention_copies(config_) : 1);
  if (sees()) progress.bytes_total += total_bytes(measure_vision(checkpoint));
  const LoadListener count = [&](std::int64_t bytes) {
    progress.bytes_done += bytes;
    if (listener) listener(progress);
  };
  auto local = std::make_unique<LocalWorkers>(checkpoint, config_, model_, count);
  local_ = local.get();
  workers_ = std::move(local);
  takers_ = workers_->takers();
  // The tower works beside the others, on a share of the threads like theirs.
  if (sees()) load_tower(checkpoint, std::max(1, config_.threads / (config_.layout.workers() + 1)), count);
}

void Engine::load_tower(const Checkpoint& checkpoint, std::int32_t threads, const LoadListener& count) {
  std::unique_ptr<Backend> backend = make_vision_backend(config_, threads);
  std::unique_ptr<Step3Vision> tower = load_vision(checkpoint, *backend, count);
  tower_bytes_ = tower->weight_bytes();
  vision_ = std::make_unique<VisionWorker>(
      std::move(backend), std::move(tower),
      VisionWorker::Limits{config_.picture_cache_mib << 20, config_.pictures_pending_mib << 20, config_.queue_max},
      [this](Request request, const std::shared_ptr<EventStream>& events) {
        const RequestId id = request.id;
        if (const Status status = submit(std::move(request), events); !status) {
          RequestEvent refused;
          refused.id = id;
          refused.finish = FinishReason::kError;
          refused.status = status;
          events->push(std::move(refused));
        }
      });
}

Status Engine::submit(Request request, std::shared_ptr<EventStream> events) {
  const auto better = [](const RequestTaker* a, const RequestTaker* b) {
    return a->available() != b->available() ? a->available() : a->outstanding() < b->outstanding();
  };
  RequestTaker* least = *std::ranges::min_element(takers_, better);
  if (const std::int64_t waiting = least->outstanding(); waiting >= config_.queue_max + config_.sequences_max)
    return Status(ErrorCode::kOutOfResources,
                  format("{} requests are waiting, limit is {} (--queue-max)", waiting, config_.queue_max));
  {
    std::lock_guard lock(mutex_);
    // Ids grow, so the map is trimmed from its start of those that have long ended.
    if (where_.size() > 4 * static_cast<std::size_t>(config_.queue_max + config_.sequences_max) * takers_.size())
      where_.erase(where_.begin());
    where_[request.id] = least;
  }
  request.arrival = clock_.now();
  least->submit(std::move(request), std::move(events));
  return Status::ok();
}

Status Engine::submit(Request request, std::vector<PlacedPicture> pictures, std::shared_ptr<EventStream> events) {
  if (pictures.empty()) return submit(std::move(request), std::move(events));
  if (!vision_) return {ErrorCode::kUnsupported, "this model sees no pictures"};
  return vision_->submit(std::move(request), std::move(pictures), std::move(events));
}

void Engine::cancel(RequestId id) {
  if (vision_) vision_->cancel(id);
  std::lock_guard lock(mutex_);
  if (const auto found = where_.find(id); found != where_.end()) found->second->cancel(id);
}

void Engine::stop() {
  if (stopped_) return;
  stopped_ = true;
  if (vision_) {  // first: it hands requests on
    vision_->stop();
    if (vision_thread_.joinable()) vision_thread_.join();
  }
  if (workers_) workers_->stop();  // none: a start that failed
}

std::int64_t Engine::weight_bytes() const {
  return workers_->weight_bytes() + tower_bytes_;
}

std::int64_t Engine::kv_bytes() const {
  const KvSpec kv = model_.kv_spec(config_.kv_dtype, 0);
  return static_cast<std::int64_t>(kv.token_bytes()) * config_.kv_tokens * config_.layout.attention_workers +
         window_kv_bytes(config_, model_) * config_.layout.attention_workers;
}

std::vector<AttentionWorker*> Engine::attention_workers() const {
  std::vector<AttentionWorker*> workers;
  if (local_)
    for (const auto& worker : local_->attention()) workers.push_back(worker.get());
  return workers;
}

std::vector<FfnWorker*> Engine::ffn_workers() const {
  std::vector<FfnWorker*> workers;
  if (local_)
    for (const auto& worker : local_->ffn()) workers.push_back(worker.get());
  return workers;
}

}  // namespace tandem
