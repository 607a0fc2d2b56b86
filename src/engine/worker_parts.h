// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// How workers are made of a configuration: the same for threads of one process and for processes of their own. Who
// calls these chooses the transport.
#pragma once

#include <memory>

#include "engine/attention/attention_worker.h"
#include "engine/ffn/ffn_worker.h"
#include "engine/settings/engine_config.h"

namespace tandem {

// config as resolve() leaves it.
WorkerConfig worker_config(const EngineConfig& config, const ModelConfig& model);
SchedulerConfig scheduler_config(const EngineConfig& config, const ModelConfig& model);  // of an attention worker

// With this worker's part of the threads, on its GPU.
std::unique_ptr<Backend> make_worker_backend(const EngineConfig& config, PeerRank rank);
// Of the vision worker; on a GPU behind the workers that are there, too. threads are for cpu.
std::unique_ptr<Backend> make_vision_backend(const EngineConfig& config, std::int32_t threads);

struct WorkerParts {
  WorkerConfig worker;
  std::int32_t index = 0;  // of its kind
  std::shared_ptr<const Model> model;
  std::unique_ptr<Backend> backend;
  std::unique_ptr<Transport> transport;
  const Clock* clock = nullptr;
  std::optional<KeptKv> kept = {};        // attention workers
  std::shared_ptr<DeviceSeam> seam = {};  // both sides the same one
};

std::unique_ptr<AttentionWorker> make_attention_worker(const EngineConfig& config, WorkerParts parts);
std::unique_ptr<FfnWorker> make_ffn_worker(const EngineConfig& config, WorkerParts parts);

}  // namespace tandem
