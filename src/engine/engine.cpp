// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "engine/engine.h"

#include <algorithm>

#include "base/format.h"
#include "engine/backends.h"
#include "ops/checked.h"
#include "transport/inproc/inproc.h"

namespace tandem {

namespace {

// Tells deployments apart: frames of one are refused by another.
std::uint64_t deployment_id(const EngineConfig& config, const ModelConfig& model) {
  const std::string text =
      format("{} {} layers, {} wide, {} micro-batches, {}, activations {}", model.architecture, model.layers,
             model.hidden, config.micro_batches, to_string(config.layout), name(config.activations));
  return checksum(std::as_bytes(std::span(text.data(), text.size())));
}

WorkerConfig worker_config(const EngineConfig& c, const ModelConfig& model) {
  WorkerConfig w;
  w.layout = c.layout;
  w.micro_batches = c.micro_batches;
  w.rows_max = c.rows_per_step_max;
  w.activations = c.activations;
  w.deployment = deployment_id(c, model);
  w.resend_after = c.resend_after_ms * 1'000'000;
  w.resends_max = c.resends_max;
  return w;
}

SchedulerConfig scheduler_config(const EngineConfig& c, const ModelConfig& model) {
  SchedulerConfig s;
  s.queue_max = c.queue_max;
  s.sequences_max = c.sequences_max;
  s.rows_per_step_max = c.rows_per_step_max;
  s.prefill_chunk = c.prefill_chunk;
  s.context_tokens_max = c.context_tokens_max;
  s.vocab = model.vocab;
  if (model.vision) s.embedded_hidden = model.hidden;
  s.micro_batches = c.micro_batches;
  return s;
}

}  // namespace

std::unique_ptr<Engine> Engine::start(const Checkpoint& checkpoint, const EngineConfig& config,
                                      const ProgressListener& listener) {
  const ModelConfig model = read_config(checkpoint);
  const auto weight_bytes = static_cast<std::int64_t>(checkpoint.tensor_bytes());
  std::unique_ptr<Engine> engine(new Engine(resolve(config, model, weight_bytes), model));
  engine->clock_ = std::make_unique<RealClock>();
  engine->load(checkpoint, listener);
  engine->make_workers();
  if (engine->vision_) engine->vision_thread_ = std::thread([w = engine->vision_.get()] { w->run(); });
  for (const auto& worker : engine->ffn_) engine->threads_.emplace_back([w = worker.get()] { w->run(); });
  for (const auto& worker : engine->attention_) engine->threads_.emplace_back([w = worker.get()] { w->run(); });
  return engine;
}

Engine::~Engine() {
  stop();
}

std::unique_ptr<Backend> Engine::make_worker_backend() const {
  const std::int32_t threads = std::max(1, config_.threads / config_.layout.workers());
  std::unique_ptr<Backend> backend = make_backend(config_.backend, config_.variant, threads);
  if (config_.wrap_backend) backend = config_.wrap_backend(std::move(backend));
  return config_.checked ? make_checked_backend(std::move(backend)) : std::move(backend);
}

void Engine::load(const Checkpoint& checkpoint, const ProgressListener& listener) {
  for (std::int32_t i = 0; i < config_.layout.workers(); ++i) backends_.push_back(make_worker_backend());
  backend_description_ = backends_.front()->describe();
  const std::vector<ModelShare> all = shares(config_.layout, model_.experts);
  LoadProgress progress;
  for (const ModelShare& share : all) progress.bytes_total += total_bytes(measure_share(checkpoint, share));
  if (sees()) progress.bytes_total += total_bytes(measure_vision(checkpoint));
  const LoadListener count = [&](std::int64_t bytes) {
    progress.bytes_done += bytes;
    if (listener) listener(progress);
  };
  // The attention workers share one copy of their half.
  attention_model_ = load_model(checkpoint, all[0], *backends_.front(), count);
  weight_bytes_ = attention_model_->weight_bytes();
  for (std::int32_t f = 0; f < config_.layout.ffn_workers; ++f) {
    ffn_models_.push_back(load_model(checkpoint, all[f + 1], *backends_[config_.layout.ffn_rank(f)], count));
    weight_bytes_ += ffn_models_.back()->weight_bytes();
  }
  if (sees()) load_tower(checkpoint, count);
}

// The tower works beside the others, on a share of the threads like theirs; on the CPU where they are on a GPU.
void Engine::load_tower(const Checkpoint& checkpoint, const LoadListener& count) {
  const std::int32_t threads = std::max(1, config_.threads / (config_.layout.workers() + 1));
  const std::string name = config_.backend == "cuda" ? "cpu" : config_.backend;
  std::unique_ptr<Backend> backend = make_backend(name, config_.variant, threads);
  if (config_.checked) backend = make_checked_backend(std::move(backend));
  std::unique_ptr<Step3Vision> tower = load_vision(checkpoint, *backend, count);
  weight_bytes_ += tower->weight_bytes();
  vision_ = std::make_unique<VisionWorker>(
      std::move(backend), std::move(tower),
      VisionWorker::Limits{config_.picture_cache_mib << 20, config_.pictures_pending_mib << 20, config_.queue_max},
      [this](Request request, std::shared_ptr<EventStream> events) {
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

void Engine::make_workers() {
  const Layout& layout = config_.layout;
  InprocNetwork network(layout.workers());
  const auto endpoint = [&](PeerRank rank) {
    std::unique_ptr<Transport> transport = network.endpoint(rank);
    return config_.wrap_transport && !layout.local() ? config_.wrap_transport(std::move(transport), rank)
                                                     : std::move(transport);
  };
  const auto track = [&](const std::string& name) { return config_.trace ? config_.trace->add_track(name) : nullptr; };
  const WorkerConfig worker = worker_config(config_, model_);
  for (std::int32_t a = 0; a < layout.attention_workers; ++a) {
    AttentionWorker::Parts parts;
    parts.config = worker;
    parts.scheduler = scheduler_config(config_, model_);
    parts.kv = model_.kv_spec(config_.kv_dtype, config_.kv_tokens / kBlockTokens);
    parts.window_kv = model_.window_kv_spec(config_.kv_dtype, window_blocks(config_, model_));
    parts.prefix_cache = config_.prefix_cache;
    parts.index = a;
    parts.model = attention_model_;
    parts.backend = std::move(backends_[layout.attention_rank(a)]);
    parts.transport = endpoint(layout.attention_rank(a));
    parts.clock = clock_.get();
    parts.track = track(layout.local() ? "A and F" : format("A{}", a));
    parts.observer = config_.observer;
    attention_.push_back(std::make_unique<AttentionWorker>(std::move(parts)));
  }
  for (std::int32_t f = 0; f < layout.ffn_workers; ++f)
    ffn_.push_back(std::make_unique<FfnWorker>(worker, f, ffn_models_[f], std::move(backends_[layout.ffn_rank(f)]),
                                               endpoint(layout.ffn_rank(f)), *clock_, track(format("F{}", f))));
}

Status Engine::submit(Request request, std::shared_ptr<EventStream> events) {
  AttentionWorker* least = attention_.front().get();
  for (const auto& worker : attention_)
    if (worker->outstanding() < least->outstanding()) least = worker.get();
  if (const std::int64_t waiting = least->outstanding(); waiting >= config_.queue_max + config_.sequences_max)
    return Status(ErrorCode::kOutOfResources,
                  format("{} requests are waiting, limit is {} (--queue-max)", waiting, config_.queue_max));
  {
    std::lock_guard lock(mutex_);
    // Ids grow, so the map is trimmed from its start of those that have long ended.
    if (where_.size() > 4 * static_cast<std::size_t>(config_.queue_max + config_.sequences_max) * attention_.size())
      where_.erase(where_.begin());
    where_[request.id] = least;
  }
  request.arrival = clock_->now();
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
  // Attention workers end first, so that none waits for an FFN worker that is gone. Their threads were started last.
  const auto attention_threads = threads_.begin() + static_cast<std::ptrdiff_t>(ffn_.size());
  for (const auto& worker : attention_) worker->stop();
  for (auto thread = attention_threads; thread != threads_.end(); ++thread) thread->join();
  for (const auto& worker : ffn_) worker->stop();
  for (auto thread = threads_.begin(); thread != attention_threads; ++thread) thread->join();
}

std::int64_t Engine::kv_bytes() const {
  const KvSpec kv = model_.kv_spec(config_.kv_dtype, 0);
  return static_cast<std::int64_t>(kv.token_bytes()) * config_.kv_tokens * config_.layout.attention_workers +
         window_kv_bytes(config_, model_) * config_.layout.attention_workers;
}

std::vector<AttentionWorker*> Engine::attention_workers() const {
  std::vector<AttentionWorker*> workers;
  for (const auto& worker : attention_) workers.push_back(worker.get());
  return workers;
}

std::vector<FfnWorker*> Engine::ffn_workers() const {
  std::vector<FfnWorker*> workers;
  for (const auto& worker : ffn_) workers.push_back(worker.get());
  return workers;
}

}  // namespace tandem
