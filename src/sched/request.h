// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What a client asks for, in native types: text is gone by now. A request flows one way, from whoever made it to the
// scheduler; its answer flows back as events (RequestEvent).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "ops/sampling.h"
#include "sched/embedding_rows.h"
#include "sched/token_constraint.h"

namespace tandem {

using RequestId = std::uint64_t;

struct Request {
  RequestId id = 0;
  std::vector<std::int32_t> prompt;    // at least one token
  std::vector<std::int32_t> answer;    // what was drawn elsewhere, and told; the answer goes on after it
  std::vector<EmbeddedSpan> embedded;  // ascending, within the prompt
  std::int32_t new_tokens_max = 256;
  std::vector<std::int32_t> stop_ids;  // a token of these ends the answer; it is reported and counted
  SamplingParams sampling;
  std::shared_ptr<TokenConstraint> constraint;  // of this request alone, after answer; none: it is free
  std::uint64_t cache_salt = 0;
  bool prompt_logits = false;  // compute logits of every prompt row (for the observer); no prefix hit is used
  Nanoseconds arrival = 0;
};

enum class FinishReason { kNone, kStop, kLength, kCancelled, kError };
std::string_view name(FinishReason reason);  // "stop", "length", …

// One step's worth of news about a request. The last event of a request has a finish reason.
struct RequestEvent {
  RequestId id = 0;
  std::vector<SampledToken> tokens;
  FinishReason finish = FinishReason::kNone;
  Status status;  // why, when finish is kError
  std::int64_t prompt_tokens = 0;
  std::int64_t cached_tokens = 0;  // of the prompt, found in the prefix cache
  std::int32_t preemptions = 0;
};

}  // namespace tandem
