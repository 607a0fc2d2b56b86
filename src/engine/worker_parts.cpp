// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "engine/worker_parts.h"

#include <algorithm>
#include <span>
#include <utility>

#include "base/format.h"
#include "engine/settings/backends.h"
#include "engine/settings/gpu_places.h"
#include "ops/checked.h"
#include "ops/cuda/cuda_backend.h"

namespace tandem {

namespace {

// Tells deployments apart: frames of one are refused by another.
std::uint64_t deployment_id(const EngineConfig& config, const ModelConfig& model) {
  if (config.deployment != 0) return config.deployment;
  const std::string text =
      format("{} {} layers, {} wide, {} micro-batches, {}, activations {}", model.architecture, model.layers,
             model.hidden, config.micro_batches, to_string(config.layout), name(config.activations));
  return checksum(std::as_bytes(std::span(text.data(), text.size())));
}

TraceTrack* make_track(const EngineConfig& config, const std::string& name) {
  return config.trace ? config.trace->add_track(name) : nullptr;
}

}  // namespace

WorkerConfig worker_config(const EngineConfig& c, const ModelConfig& model) {
  WorkerConfig w;
  w.layout = c.layout;
  w.micro_batches = c.micro_batches;
  w.rows_max = c.rows_per_step_max;
  w.activations = c.activations;
  w.deployment = deployment_id(c, model);
  w.epoch = c.epoch;
  w.resend_after = c.resend_after_ms * kMillisecond;
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

std::unique_ptr<Backend> make_worker_backend(const EngineConfig& config, PeerRank rank) {
  const std::int32_t threads = std::max(1, config.threads / config.layout.workers());
  std::unique_ptr<Backend> backend = make_backend(config.backend, config.variant, threads, gpu_of(config, rank));
  if (config.wrap_backend) backend = config.wrap_backend(std::move(backend));
  return config.checked ? make_checked_backend(std::move(backend)) : std::move(backend);
}

std::unique_ptr<Backend> make_vision_backend(const EngineConfig& config, std::int32_t threads) {
  const std::string& name = vision_backend(config);
  std::unique_ptr<Backend> backend = name == "cuda" ? make_cuda_backend(vision_gpu(config), GpuPriority::kBackground)
                                                    : make_backend(name, config.variant, threads);
  return config.checked ? make_checked_backend(std::move(backend)) : std::move(backend);
}

std::unique_ptr<AttentionWorker> make_attention_worker(const EngineConfig& config, WorkerParts from) {
  const ModelConfig& model = from.model->config();
  AttentionWorker::Parts parts;
  parts.config = from.worker;
  parts.scheduler = scheduler_config(config, model);
  parts.kv = model.kv_spec(config.kv_dtype, config.kv_tokens / kBlockTokens);
  parts.window_kv = model.window_kv_spec(config.kv_dtype, window_blocks(config, model));
  parts.prefix_cache = config.prefix_cache;
  parts.run_ahead = config.run_ahead;
  parts.kept = std::move(from.kept);
  parts.index = from.index;
  parts.model = std::move(from.model);
  parts.backend = std::move(from.backend);
  parts.transport = std::move(from.transport);
  parts.seam = std::move(from.seam);
  parts.clock = from.clock;
  parts.track = make_track(config, config.layout.local() ? "A and F" : format("A{}", from.index));
  parts.observer = config.observer;
  return std::make_unique<AttentionWorker>(std::move(parts));
}

std::unique_ptr<FfnWorker> make_ffn_worker(const EngineConfig& config, WorkerParts from) {
  return std::make_unique<FfnWorker>(from.worker, from.index, std::move(from.model), std::move(from.backend),
                                     std::move(from.transport), *from.clock,
                                     make_track(config, format("F{}", from.index)), std::move(from.seam));
}

}  // namespace tandem
