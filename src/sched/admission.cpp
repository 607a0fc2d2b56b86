// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "sched/admission.h"

#include <algorithm>
#include <limits>
#include <span>

#include "base/format.h"

namespace tandem {

namespace {

constexpr std::int32_t kTopLogprobsMax = 32;
constexpr std::size_t kLogitBiasMax = 1024;

Status out_of_range(const char* what, double value, const char* allowed) {
  return {ErrorCode::kInvalidArgument, format("{} is {}, allowed are {}", what, value, allowed)};
}

void check_at_least(std::string_view flag, std::int64_t value, std::int64_t limit) {
  if (value < limit) {
    throw Error(ErrorCode::kInvalidArgument, format("{} is {}, must be at least {}", flag, value, limit));
  }
}

Status check_embedded(const Request& request, std::int32_t hidden) {
  const auto refused = [](std::string why) { return Status(ErrorCode::kInvalidArgument, std::move(why)); };
  std::int64_t end = 0;
  for (const EmbeddedSpan& span : request.embedded) {
    if (hidden == 0) return refused("embedded rows are given to a model that takes none");
    if (!span.rows || span.rows->hidden != hidden)
      return refused(format("embedded rows have {} values, must have {}", span.rows ? span.rows->hidden : 0, hidden));
    if (span.position < end || span.count < 1 || span.count > std::ssize(request.prompt) - span.position)
      return refused(format("{} embedded rows from position {} on do not follow those before within {} prompt tokens",
                            span.count, span.position, request.prompt.size()));
    if (span.first_row < 0 || span.first_row > span.rows->rows() - span.count)
      return refused(
          format("{} embedded rows from row {} on are taken of {}", span.count, span.first_row, span.rows->rows()));
    end = span.end();
  }
  return Status::ok();
}

Status check_tokens(const char* what, std::span<const std::int32_t> tokens, std::int32_t vocab) {
  const auto unknown = std::ranges::find_if(tokens, [&](std::int32_t id) { return id < 0 || id >= vocab; });
  if (unknown == tokens.end()) return Status::ok();
  return {ErrorCode::kInvalidArgument,
          format("{} token {} is {}, vocabulary has {}", what, unknown - tokens.begin(), *unknown, vocab)};
}

// An answer that is gone on with: one token at least is left to be drawn.
Status check_answer(const Request& request, const SchedulerConfig& config) {
  const std::int64_t answer = std::ssize(request.answer), prompt = std::ssize(request.prompt);
  if (answer == 0) return Status::ok();
  const std::int64_t limit = std::min<std::int64_t>(request.new_tokens_max, config.context_tokens_max - prompt) - 1;
  if (answer > limit)
    return {ErrorCode::kInvalidArgument, format("answer has {} tokens, limit is {} to go on with", answer, limit)};
  return check_tokens("answer", request.answer, config.vocab);
}

}  // namespace

void check_config(const SchedulerConfig& config, const KvSpace::Config& kv) {
  check_at_least("--queue-max", config.queue_max, 1);
  check_at_least("--sequences-max", config.sequences_max, 1);
  check_at_least("--prefill-chunk", config.prefill_chunk, 1);
  check_at_least("--context-tokens-max", config.context_tokens_max, 2);
  check_at_least("--micro-batches", config.micro_batches, 1);
  check_at_least("vocabulary", config.vocab, 1);
  check_at_least("KV blocks", kv.blocks, 1);
  constexpr std::int64_t kBlocksMax = std::numeric_limits<BlockId>::max();
  if (kv.blocks > kBlocksMax) {
    throw Error(ErrorCode::kInvalidArgument, format("KV has {} blocks, limit is {}", kv.blocks, kBlocksMax));
  }
  const std::int64_t enough =
      KvSpace::window_blocks_enough(kv.window_tokens, config.sequences_max, config.rows_per_step_max);
  if (kv.window_tokens > 0 && kv.window_blocks < std::min(kv.blocks, enough)) {  // else a step could lack some
    throw Error(ErrorCode::kInvalidArgument,
                format("KV has {} window blocks, must be at least {}", kv.window_blocks, std::min(kv.blocks, enough)));
  }
  if (config.rows_per_step_max < config.sequences_max) {  // else a decoding sequence could be left out for good
    throw Error(ErrorCode::kInvalidArgument,
                format("--rows-per-step-max is {}, must be at least --sequences-max, which is {}",
                       config.rows_per_step_max, config.sequences_max));
  }
}

Status check_request(const Request& request, const SchedulerConfig& config, std::int64_t kv_blocks) {
  const auto prompt_tokens = static_cast<std::int64_t>(request.prompt.size());
  const std::int64_t context = config.context_tokens_max;
  if (prompt_tokens == 0) return {ErrorCode::kInvalidArgument, "prompt has 0 tokens, must have at least 1"};
  if (prompt_tokens >= context) {  // one token at least must be left for the answer
    return {ErrorCode::kInvalidArgument,
            format("prompt has {} tokens, limit is {} (--context-tokens-max, less one for the answer)", prompt_tokens,
                   context - 1)};
  }
  if (request.new_tokens_max < 1 || request.new_tokens_max > context) {
    return {ErrorCode::kInvalidArgument, format("answer may have {} tokens, must be 1 to {} (--context-tokens-max)",
                                                request.new_tokens_max, context)};
  }
  if (Status status = check_tokens("prompt", request.prompt, config.vocab); !status) return status;
  if (Status status = check_answer(request, config); !status) return status;
  if (Status status = check_embedded(request, config.embedded_hidden); !status) return status;
  // The last token is never computed.
  const std::int64_t positions = std::min(prompt_tokens + request.new_tokens_max, context) - 1;
  if (positions > kv_blocks * kBlockTokens) {
    return {ErrorCode::kOutOfResources, format("prompt and answer need KV for {} tokens, limit is {} (--kv-tokens)",
                                               positions, kv_blocks * kBlockTokens)};
  }
  return Status::ok();
}

Status check_sampling(const SamplingParams& s, std::int32_t vocab) {
  const auto within = [](double value, double low, double high) { return value >= low && value <= high; };
  if (!within(s.temperature, 0, 100)) return out_of_range("temperature", s.temperature, "0 … 100");
  if (s.top_k < 0) return out_of_range("top_k", s.top_k, "0 (off) and above");
  if (!within(s.top_p, 0, 1) || s.top_p == 0) return out_of_range("top_p", s.top_p, "above 0 up to 1");
  if (!within(s.min_p, 0, 1)) return out_of_range("min_p", s.min_p, "0 … 1");
  if (!within(s.repetition_penalty, 0.01, 100))
    return out_of_range("repetition_penalty", s.repetition_penalty, "0.01 … 100");
  if (!within(s.presence_penalty, -100, 100)) return out_of_range("presence_penalty", s.presence_penalty, "-100 … 100");
  if (!within(s.frequency_penalty, -100, 100))
    return out_of_range("frequency_penalty", s.frequency_penalty, "-100 … 100");
  if (s.logprobs < -1 || s.logprobs > kTopLogprobsMax) return out_of_range("logprobs", s.logprobs, "0 … 32");
  if (s.logit_bias.size() > kLogitBiasMax)
    return out_of_range("number of logit_bias entries", static_cast<double>(s.logit_bias.size()), "up to 1024");
  for (const auto& [id, bias] : s.logit_bias) {
    if (id < 0 || id >= vocab) return out_of_range("token of logit_bias", id, format("0 … {}", vocab - 1).c_str());
    if (!within(bias, -1e4, 1e4)) return out_of_range("logit_bias", bias, "-10000 … 10000");
  }
  return Status::ok();
}

}  // namespace tandem
