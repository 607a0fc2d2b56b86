// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Settings that were left open, fitted to the model and the machine; and the checks of those that were not.
#include <algorithm>

#include "base/error.h"
#include "base/format.h"
#include "engine/backends.h"
#include "engine/engine_config.h"
#include "engine/machine.h"
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

// KV for as many tokens as all sequences could need, but no more than an eighth of what is left beside the weights (a
// laptop does other things too; a GPU does not, so three quarters of it), or half of it where one whole context needs
// that.
std::int64_t fitting_kv_tokens(const EngineConfig& c, std::int64_t token_bytes, std::int64_t room,
                               std::int32_t attention_workers) {
  const std::int64_t worker_room = room / attention_workers;
  const std::int64_t least = (c.context_tokens_max + kBlockTokens - 1) / kBlockTokens * kBlockTokens;
  const std::int64_t wanted = std::max(c.sequences_max * c.context_tokens_max, least);
  if (least * token_bytes > worker_room / 2)
    throw Error(ErrorCode::kOutOfResources,
                format("KV for one context of {} tokens takes {}, the machine has {} left "
                       "beside the weights (--context-tokens-max)",
                       c.context_tokens_max, mebibytes(least * token_bytes), mebibytes(worker_room)));
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
  if (c.run_ahead && (!c.layout.local() || (c.backend != "cuda" && !c.wrap_backend)))
    throw Error(ErrorCode::kUnsupported,
                format("running ahead is for a GPU and the layout local, not for {} on {} (--run-ahead, --layout, "
                       "--device)",
                       to_string(c.layout), c.backend));
  if (c.layout.ffn_workers > 8 && model.experts == 0)
    throw Error(
        ErrorCode::kInvalidArgument,
        format("layout {} has more FFN workers than the 8 slices of a dense FFN (--layout)", to_string(c.layout)));

  return c;
}

EngineConfig resolve(EngineConfig given, const ModelConfig& model, std::int64_t weight_bytes,
                     std::int32_t attention_workers) {
  EngineConfig c = resolve_limits(std::move(given), model);
  if (attention_workers == 0) attention_workers = c.layout.attention_workers;
  const auto token_bytes = static_cast<std::int64_t>(model.kv_spec(c.kv_dtype, 0).token_bytes());
  const std::int64_t available = backend_memory_bytes(c.backend);
  const std::int64_t room = available - weight_bytes;
  if (available > 0 && room <= 0)
    throw Error(ErrorCode::kOutOfResources,
                format("the weights take {}, the machine has {}", mebibytes(weight_bytes), mebibytes(available)));
  if (c.kv_tokens == 0)
    c.kv_tokens =
        available > 0
            ? fitting_kv_tokens(c, token_bytes, room - window_kv_bytes(c, model) * attention_workers, attention_workers)
            : c.context_tokens_max;
  need_range("KV size in tokens", c.kv_tokens, 1, std::int64_t{1} << 40, "--kv-tokens");
  c.kv_tokens = (c.kv_tokens + kBlockTokens - 1) / kBlockTokens * kBlockTokens;
  if (const double bytes = (static_cast<double>(c.kv_tokens) * static_cast<double>(token_bytes) +
                            static_cast<double>(window_kv_bytes(c, model))) *
                           attention_workers;
      available > 0 && bytes > static_cast<double>(room))
    throw Error(ErrorCode::kOutOfResources,
                format("KV for {} tokens on {} attention workers takes {:.0f} MiB, the machine has {} left beside the "
                       "weights (--kv-tokens)",
                       c.kv_tokens, attention_workers, bytes / (1 << 20), mebibytes(room)));
  return c;
}

}  // namespace tandem
