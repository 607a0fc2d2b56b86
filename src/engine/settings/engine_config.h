// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The settings of an engine: one structure for the command line, the deployment file and tests.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/worker/layout.h"
#include "engine/worker/observer.h"
#include "engine/worker/trace.h"
#include "model/config.h"
#include "ops/backend.h"
#include "transport/transport.h"

namespace tandem {

// 0 or empty means: fit to the machine and model. resolve() fills these in; what was chosen is printed at start.
struct EngineConfig {
  Layout layout;
  std::int32_t micro_batches = 0;               // --micro-batches
  std::string backend = "cpu";                  // --device: cpu, cuda, reference
  std::vector<std::int32_t> attention_gpus;     // --gpu-a, of attention workers in turn; none: GPU 0
  std::vector<std::int32_t> ffn_gpus;           // --gpu-f, of FFN workers in turn; none: as attention workers
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
  bool run_ahead = true;                        // --no-run-ahead: of decoding steps, over a backend that runs behind
  bool checked = false;                         // --check: validate every operator before it runs
  std::int64_t resend_after_ms = 10'000;        // --resend-after-ms
  std::int32_t resends_max = 3;                 // --resends-max
  bool vision = true;                           // --no-vision: a model that sees is loaded without its tower
  std::string vision_backend;                   // of the tower; empty: as backend. --device in front of a deployment
  std::int32_t vision_gpu = -1;                 // --gpu-vision; -1: that of the first attention worker
  std::int64_t picture_cache_mib = 256;         // --picture-cache-mib, of encoded rows
  std::int64_t pictures_pending_mib = 512;      // --pictures-pending-mib, of decoded pictures that wait
  // Of workers in processes of their own: what frames have to show. 0: made of model and layout.
  std::uint64_t deployment = 0;
  std::uint32_t epoch = 0;
  // Decorators and windows; not settings.
  Trace* trace = nullptr;
  Observer* observer = nullptr;
  std::function<std::unique_ptr<Transport>(std::unique_ptr<Transport>, PeerRank)> wrap_transport;
  std::function<std::unique_ptr<Backend>(std::unique_ptr<Backend>)> wrap_backend;
};

inline constexpr std::int32_t kMicroBatchesMax = 4;

// The type that --kv-dtype and deployment files call f32, bf16 or fp8 (E4M3 with a scale for each head of a token).
constexpr DType kv_dtype_named(std::string_view word) {
  return word == "f32" ? DType::kF32 : word == "fp8" ? DType::kF8E4M3 : DType::kBF16;
}

// What workers of one memory, the machine's or a GPU's, take of it beside their KV.
struct MemoryUse {
  std::int32_t gpu = 0;
  std::int64_t weight_bytes = 0;
  std::int32_t attention_workers = 0;  // each keeps KV
};

// Fills what is 0 and checks every size against model and machine; KV that is
// fitted is as large on every attention worker. Throws Error{kInvalidArgument, kOutOfResources}.
EngineConfig resolve(EngineConfig config, const ModelConfig& model, std::span<const MemoryUse> uses);
// Where all is in the memory of the first worker; attention_workers 0: all of the layout.
EngineConfig resolve(EngineConfig config, const ModelConfig& model, std::int64_t weight_bytes,
                     std::int32_t attention_workers = 0);
// All of it that does not ask for this machine's memory: KV may be left 0.
EngineConfig resolve_limits(EngineConfig config, const ModelConfig& model);

// Blocks for windowed layers, of each attention worker: what all sequences of a step can see, and no more.
std::int64_t window_blocks(const EngineConfig& config, const ModelConfig& model);
std::int64_t window_kv_bytes(const EngineConfig& config, const ModelConfig& model);

}  // namespace tandem
