// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Settings that were left open, fitted to the model and the machine; and the checks of those that were not.
#include <algorithm>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/format.h"
#include "engine/settings/backends.h"
#include "engine/settings/engine_config.h"
#include "engine/settings/gpu_places.h"
#include "engine/settings/machine.h"
#include "kv/kv_space.h"

namespace tandem {

namespace {

void need_range(const char* what, std::int64_t value, std::int64_t low, std::int64_t high, const char* flag) {
  if (value < low || value > high)
    throw Error(ErrorCode::kInvalidArgument,
                format("{} is {}, allowed are {} … {} ({})", what, value, low, high, flag));
}

std::string mebibytes(std::int64_t bytes) {
  return format("{} MiB", bytes >> 20);
}

struct Memory {
  std::string name;
  std::int64_t room = 0;  // beside the weights
  bool known = false;     // how much there is
  std::int32_t attention_workers = 0;
};

Memory memory_of(const EngineConfig& c, const MemoryUse& use) {
  const std::optional<std::int64_t> known = backend_memory_bytes(c.backend, use.gpu);
  const std::int64_t available = known.value_or(0);
  const Memory memory{.name = c.backend == "cuda" ? format("GPU {}", use.gpu) : "the machine",
                      .room = available - use.weight_bytes,
                      .known = known.has_value(),
                      .attention_workers = use.attention_workers};
  if (memory.known && memory.room <= 0)
    throw Error(ErrorCode::kOutOfResources, format("the weights take {}, {} has {}", mebibytes(use.weight_bytes),
                                                   memory.name, mebibytes(available)));
  return memory;
}

void check_kv(const EngineConfig& c, std::int64_t token_bytes, std::int64_t window_bytes, const Memory& memory) {
  const double bytes =
      (static_cast<double>(c.kv_tokens) * static_cast<double>(token_bytes) + static_cast<double>(window_bytes)) *
      memory.attention_workers;
  if (!memory.known || bytes <= static_cast<double>(memory.room)) return;
  throw Error(ErrorCode::kOutOfResources,
              format("KV for {} tokens on {} attention workers takes {:.0f} MiB, {} has {} left beside the weights "
                     "(--kv-tokens)",
                     c.kv_tokens, memory.attention_workers, bytes / (1 << 20), memory.name, mebibytes(memory.room)));
}

// KV for as many tokens as all sequences could need, but no more than an eighth of what is left beside the weights (a
// laptop does other things too; a GPU does not, so three quarters of it), or half of it where one whole context needs
// that.
std::int64_t fitting_kv_tokens(const EngineConfig& c, std::int64_t token_bytes, std::int64_t window_bytes,
                               const Memory& memory) {
  const std::int64_t worker_room = memory.room / memory.attention_workers - window_bytes;
  const std::int64_t least = (c.context_tokens_max + kBlockTokens - 1) / kBlockTokens * kBlockTokens;
  const std::int64_t wanted = std::max(c.sequences_max * c.context_tokens_max, least);
  if (least * token_bytes > worker_room / 2)
    throw Error(ErrorCode::kOutOfResources,
                format("KV for one context of {} tokens takes {}, {} has {} left "
                       "beside the weights (--context-tokens-max)",
                       c.context_tokens_max, mebibytes(least * token_bytes), memory.name, mebibytes(worker_room)));
  const std::int64_t share = c.backend == "cuda" ? worker_room / 4 * 3 : worker_room / 8;
  return std::clamp(share / std::max<std::int64_t>(token_bytes, 1), least, wanted) / kBlockTokens * kBlockTokens;
}

}  // namespace

std::int64_t window_blocks(const EngineConfig& c, const ModelConfig& model) {
  if (model.window.tokens == 0) return 0;
  const std::int64_t enough = KvSpace::window_blocks_enough(model.window.tokens, c.sequences_max, c.rows_per_step_max);
  return c.kv_tokens > 0 ? std::min(c.kv_tokens / kBlockTokens, enough) : enough;
}

std::int64_t window_kv_bytes(const EngineConfig& c, const ModelConfig& model) {
  return window_blocks(c, model) * static_cast<std::int64_t>(model.window_kv_spec(c.kv_dtype, 0).block_bytes());
}

EngineConfig resolve_limits(EngineConfig c, const ModelConfig& model) {
  if (c.threads == 0) c.threads = std::max(usable_cores(), c.layout.workers());
  need_range("thread count", c.threads, 1, 1024, "--threads");
  if (c.micro_batches == 0) c.micro_batches = c.layout.local() ? 1 : 3;
  need_range("micro-batch count", c.micro_batches, 1, kMicroBatchesMax, "--micro-batches");
  if (c.context_tokens_max == 0) c.context_tokens_max = std::min<std::int64_t>(model.context_tokens_max, 8192);
  need_range("context", c.context_tokens_max, 1, model.context_tokens_max, "--context-tokens-max");
  need_range("sequence limit", c.sequences_max, 1, 4096, "--sequences-max");
  if (c.rows_per_step_max == 0) c.rows_per_step_max = std::max<std::int64_t>(512, c.sequences_max);
  need_range("rows per step", c.rows_per_step_max, c.sequences_max, 65536, "--rows-per-step-max");
  if (c.prefill_chunk == 0) c.prefill_chunk = std::min<std::int64_t>(256, c.rows_per_step_max);
  need_range("prefill chunk", c.prefill_chunk, 1, c.rows_per_step_max, "--prefill-chunk");
  need_range("queue limit", c.queue_max, 1, 1 << 20, "--queue-max");
  if (c.activations == Activations::kFp8 && !model.block_fp8)
    throw Error(ErrorCode::kInvalidArgument,
                "activations are fp8, which needs a checkpoint whose weights are FP8 (--activations)");
  if (c.activations == Activations::kInt8 && !model.block_integers)
    throw Error(
        ErrorCode::kInvalidArgument,
        "activations are int8, which needs a checkpoint whose weights are quantised, a GGUF file of q4_0, q4_1, "
        "q4_k, q5_k, q6_k or q8_0 (--activations)");
  if (c.activations == Activations::kInt8 && c.backend == "cuda")
    throw Error(ErrorCode::kUnsupported,
                "activations in int8 are for the cpu, cuda has none (--activations, --device)");
  check_gpus(c);
  need_range("time to send again", c.resend_after_ms, 1, 3'600'000, "--resend-after-ms");
  need_range("picture cache", c.picture_cache_mib, 0, 1 << 20, "--picture-cache-mib");
  need_range("room for waiting pictures", c.pictures_pending_mib, 1, 1 << 20, "--pictures-pending-mib");
  need_range("repeat limit", c.resends_max, 0, 1000, "--resends-max");
  if (c.backend == "reference" && c.activations == Activations::kFp8 && c.layout.ffn_width > 1)
    throw Error(
        ErrorCode::kUnsupported,
        format("activations in fp8 on reference sum an expert's whole width at once; layout {} cuts it (--layout, "
               "--activations)",
               to_string(c.layout)));
  // Dense FFNs and shared experts are cut over all FFN workers, experts over those of a width group.
  if (c.backend == "cuda" && c.activations == Activations::kFp8 && c.layout.ffn_workers > 1)
    throw Error(ErrorCode::kUnsupported,
                format("activations in fp8 on cuda sum the whole width of an FFN at once; layout {} cuts it over {} "
                       "workers (--layout, --activations)",
                       to_string(c.layout), c.layout.ffn_workers));
  if (c.layout.ffn_workers > 8 && model.experts == 0)
    throw Error(
        ErrorCode::kInvalidArgument,
        format("layout {} has more FFN workers than the 8 slices of a dense FFN (--layout)", to_string(c.layout)));

  return c;
}

EngineConfig resolve(EngineConfig given, const ModelConfig& model, std::span<const MemoryUse> uses) {
  EngineConfig c = resolve_limits(std::move(given), model);
  const auto token_bytes = static_cast<std::int64_t>(model.kv_spec(c.kv_dtype, 0).token_bytes());
  std::vector<Memory> memories;
  for (const MemoryUse& use : uses)
    if (Memory memory = memory_of(c, use); memory.attention_workers > 0) memories.push_back(std::move(memory));
  if (c.kv_tokens == 0) {
    const std::int64_t window_bytes = window_kv_bytes(c, model);
    std::optional<std::int64_t> fitting;
    for (const Memory& memory : memories)
      if (memory.known) {
        const std::int64_t tokens = fitting_kv_tokens(c, token_bytes, window_bytes, memory);
        fitting = std::min(fitting.value_or(tokens), tokens);
      }
    c.kv_tokens = fitting.value_or(c.context_tokens_max);
  }
  need_range("KV size in tokens", c.kv_tokens, 1, std::int64_t{1} << 40, "--kv-tokens");
  c.kv_tokens = (c.kv_tokens + kBlockTokens - 1) / kBlockTokens * kBlockTokens;
  for (const Memory& memory : memories) check_kv(c, token_bytes, window_kv_bytes(c, model), memory);
  return c;
}

EngineConfig resolve(EngineConfig given, const ModelConfig& model, std::int64_t weight_bytes,
                     std::int32_t attention_workers) {
  const MemoryUse use{.gpu = gpu_of(given, 0),
                      .weight_bytes = weight_bytes,
                      .attention_workers = attention_workers > 0 ? attention_workers : given.layout.attention_workers};
  return resolve(std::move(given), model, std::span(&use, 1));
}

}  // namespace tandem
