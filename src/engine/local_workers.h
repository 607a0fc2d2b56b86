// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// All workers of a layout as threads of this process, over the inproc transport, or nvlink where their
// memory is that of GPUs; or one worker in the local layout.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "engine/attention/attention_worker.h"
#include "engine/ffn/ffn_worker.h"
#include "engine/settings/engine_config.h"
#include "engine/worker/workers.h"

namespace tandem {

// Of all workers' shares together.
struct LoadProgress {
  std::int64_t bytes_done = 0;
  std::int64_t bytes_total = 0;
};
using ProgressListener = std::function<void(const LoadProgress&)>;

class LocalWorkers final : public Workers {
 public:
  // Loads every worker's share; count hears of the bytes. config as resolve() leaves it, with all that it points to,
  // must outlive this.
  LocalWorkers(const Checkpoint& checkpoint, const EngineConfig& config, const ModelConfig& model,
               const LoadListener& count);
  ~LocalWorkers() override;

  void start();

  std::vector<RequestTaker*> takers() const override;
  std::vector<const WorkerStats*> ffn_stats() const override;
  std::int64_t weight_bytes() const override { return weight_bytes_; }
  std::string describe_backend() const override { return backend_description_; }
  std::string describe_hand_overs() const override { return hand_overs_; }
  void stop() override;

  const std::vector<std::unique_ptr<AttentionWorker>>& attention() const { return attention_; }
  const std::vector<std::unique_ptr<FfnWorker>>& ffn() const { return ffn_; }

 private:
  void make_workers(const ModelConfig& model);

  const EngineConfig& config_;
  std::string backend_description_, hand_overs_;
  std::int64_t weight_bytes_ = 0;
  std::unique_ptr<Clock> clock_;
  std::vector<std::unique_ptr<Backend>> backends_;                           // by rank, until the workers take them
  std::vector<std::shared_ptr<const Model>> attention_models_, ffn_models_;  // by worker of the kind
  std::vector<std::unique_ptr<AttentionWorker>> attention_;
  std::vector<std::unique_ptr<FfnWorker>> ffn_;
  std::vector<std::thread> threads_;
};

}  // namespace tandem
