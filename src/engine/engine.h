// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A deployment in one process: workers as threads over the inproc transport, or one worker in the local layout.
//
//   auto engine = Engine::start(checkpoint, config);
//   engine->submit(request, events);       // any thread; news arrive in the events queue
//
// Requests go to the attention worker with the fewest; everything else is the workers' business.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "engine/attention_worker.h"
#include "engine/ffn_worker.h"
#include "engine/trace.h"
#include "engine/vision_worker.h"

namespace tandem {

// 0 or empty means: fit to the machine and model. resolve() fills these in; what was chosen is printed at start.
struct EngineConfig {
  Layout layout;
  std::int32_t micro_batches = 0;               // --micro-batches
  std::string backend = "cpu";                  // --device: cpu, cuda, reference
  std::string variant = "auto";                 // --cpu-variant
  std::int32_t threads = 0;                     // --threads, over all workers
  DType kv_dtype = DType::kBF16;                // --kv-dtype
  Activations activations = Activations::kF32;  // --activations
  std::int64_t kv_tokens = 0;                   // --kv-tokens, of each attention worker
  std::int64_t context_tokens_max = 0;          // --context-tokens-max
  std::int64_t sequences_max = 64;              // --sequences-max
  std::int64_t rows_per_step_max = 0;           // --rows-per-step-max
  std::int64_t prefill_chunk = 0;               // --prefill-chunk
  std::int64_t queue_max = 1024;                // --queue-max
  bool prefix_cache = true;                     // --no-prefix-cache
  bool checked = false;                         // --check: validate every operator before it runs
  std::int64_t resend_after_ms = 10'000;        // --resend-after-ms
  std::int32_t resends_max = 3;                 // --resends-max
  bool vision = true;                           // --no-vision: a model that sees is loaded without its tower
  std::int64_t picture_cache_mib = 256;         // --picture-cache-mib, of encoded rows
  std::int64_t pictures_pending_mib = 512;      // --pictures-pending-mib, of decoded pictures that wait
  // Decorators and windows; not settings.
  Trace* trace = nullptr;
  Observer* observer = nullptr;
  std::function<std::unique_ptr<Transport>(std::unique_ptr<Transport>, PeerRank)> wrap_transport;
  std::function<std::unique_ptr<Backend>(std::unique_ptr<Backend>)> wrap_backend;
};

inline constexpr std::int32_t kMicroBatchesMax = 4;

// Fills what is 0 and checks every size against model and machine. Throws Error{kInvalidArgument, kOutOfResources}.
EngineConfig resolve(EngineConfig config, const ModelConfig& model, std::int64_t weight_bytes);

// Blocks for windowed layers, of each attention worker: what all sequences of a step can see, and no more.
std::int64_t window_blocks(const EngineConfig& config, const ModelConfig& model);
std::int64_t window_kv_bytes(const EngineConfig& config, const ModelConfig& model);

// Of all workers' shares together.
struct LoadProgress {
  std::int64_t bytes_done = 0;
  std::int64_t bytes_total = 0;
};
using ProgressListener = std::function<void(const LoadProgress&)>;

class Engine {
 public:
  static std::unique_ptr<Engine> start(const Checkpoint& checkpoint, const EngineConfig& config,
                                       const ProgressListener& listener = {});
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
  std::int64_t weight_bytes() const { return weight_bytes_; }
  std::int64_t kv_bytes() const;  // reserved, all attention workers
  std::string describe_backend() const { return backend_description_; }
  std::vector<AttentionWorker*> attention_workers() const;
  std::vector<FfnWorker*> ffn_workers() const;
  const VisionWorker* vision_worker() const { return vision_.get(); }  // null: the model sees nothing

 private:
  Engine(const EngineConfig& config, const ModelConfig& model) : config_(config), model_(model) {}
  void load(const Checkpoint& checkpoint, const ProgressListener& listener);
  bool sees() const { return model_.vision && config_.vision; }
  void load_tower(const Checkpoint& checkpoint, const LoadListener& count);
  void make_workers();
  std::unique_ptr<Backend> make_worker_backend() const;

  EngineConfig config_;
  ModelConfig model_;
  std::string backend_description_;
  std::int64_t weight_bytes_ = 0;
  std::unique_ptr<Clock> clock_;
  std::vector<std::unique_ptr<Backend>> backends_;  // by rank, until the workers take them
  std::shared_ptr<const Model> attention_model_;
  std::vector<std::shared_ptr<const Model>> ffn_models_;
  std::vector<std::unique_ptr<AttentionWorker>> attention_;
  std::vector<std::unique_ptr<FfnWorker>> ffn_;
  std::unique_ptr<VisionWorker> vision_;
  std::vector<std::thread> threads_;
  std::thread vision_thread_;
  std::mutex mutex_;  // guards where_
  std::map<RequestId, AttentionWorker*> where_;
  std::atomic<RequestId> last_id_{0};
  bool stopped_ = false;
};

}  // namespace tandem
