// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "sched/admission.h"

#include <algorithm>
#include <limits>

#include "base/format.h"

namespace tandem {

namespace {

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
  const auto unknown =
      std::ranges::find_if(request.prompt, [&](std::int32_t id) { return id < 0 || id >= config.vocab; });
  if (unknown != request.prompt.end()) {
    return {ErrorCode::kInvalidArgument, format("prompt token {} is {}, vocabulary has {}",
                                                unknown - request.prompt.begin(), *unknown, config.vocab)};
  }
  if (Status status = check_embedded(request, config.embedded_hidden); !status) return status;
  // The last token is never computed.
  const std::int64_t positions = std::min(prompt_tokens + request.new_tokens_max, context) - 1;
  if (positions > kv_blocks * kBlockTokens) {
    return {ErrorCode::kOutOfResources, format("prompt and answer need KV for {} tokens, limit is {} (--kv-tokens)",
                                               positions, kv_blocks * kBlockTokens)};
  }
  return Status::ok();
}

}  // namespace tandem
