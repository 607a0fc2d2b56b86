// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A model that answers requests: in front of workers, wherever they run.
//
//   auto engine = Engine::start(checkpoint, config);        // workers as threads of this process
//   auto engine = Engine::over(workers, config, checkpoint);  // workers that run elsewhere
//   engine->submit(request, events);       // any thread; news arrive in the events queue
//
// Requests go to the attention worker with the fewest; everything else is the workers' business.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "engine/local_workers.h"
#include "engine/settings/engine_config.h"
#include "engine/vision/vision_worker.h"

namespace tandem {

class Engine {
 public:
  static std::unique_ptr<Engine> start(const Checkpoint& checkpoint, const EngineConfig& config,
                                       const ProgressListener& listener = {});
  // config as resolve_limits() leaves it, with the KV of one attention worker. Pictures are seen here: with
  // config.vision the tower of a model that sees is loaded, and no other weight; all config.threads are the tower's.
  static std::unique_ptr<Engine> over(std::unique_ptr<Workers> workers, const EngineConfig& config,
                                      const Checkpoint& checkpoint, const ProgressListener& listener = {});
  ~Engine();  // stops: what still runs ends as cancelled

  RequestId next_id() { return ++last_id_; }
  // Refuses what can be seen to be wrong at once; what the scheduler refuses later ends with an error event.
  Status submit(Request request, std::shared_ptr<EventStream> events);
  // The same for a request whose placeholders stand for pictures: the vision worker sees them first.
  // A model without eyes refuses.
  Status submit(Request request, std::vector<PlacedPicture> pictures, std::shared_ptr<EventStream> events);
  void cancel(RequestId id);
  // Waits until all threads have ended; after it traces may be written.
  void stop();

  const EngineConfig& config() const { return config_; }
  const ModelConfig& model() const { return model_; }
  const Workers& workers() const { return *workers_; }
  std::int64_t weight_bytes() const;
  std::int64_t kv_bytes() const;  // reserved, all attention workers
  std::string describe_backend() const { return workers_->describe_backend(); }
  // Those of this process: none where workers run elsewhere.
  std::vector<AttentionWorker*> attention_workers() const;
  std::vector<FfnWorker*> ffn_workers() const;
  const VisionWorker* vision_worker() const { return vision_.get(); }  // null: the model sees nothing

 private:
  Engine(const EngineConfig& config, const ModelConfig& model) : config_(config), model_(model) {}
  bool sees() const { return model_.vision && config_.vision; }
  void load(const Checkpoint& checkpoint, const ProgressListener& listener);
  void load_tower(const Checkpoint& checkpoint, std::int32_t threads, const LoadListener& count);
  void start_vision();

  EngineConfig config_;
  ModelConfig model_;
  RealClock clock_;
  std::unique_ptr<Workers> workers_;
  std::vector<RequestTaker*> takers_;  // of workers_
  LocalWorkers* local_ = nullptr;      // workers_, where they are
  std::unique_ptr<VisionWorker> vision_;
  std::int64_t tower_bytes_ = 0;
  std::thread vision_thread_;
  std::mutex mutex_;  // guards where_
  std::map<RequestId, RequestTaker*> where_;
  std::atomic<RequestId> last_id_{0};
  bool stopped_ = false;
};

}  // namespace tandem
