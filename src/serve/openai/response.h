// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Answers as JSON, whole or in chunks, in the shapes of OpenAI's two completion interfaces. Shapes only: what is in
// them is decided by who calls.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/json.h"
#include "chat_format/answer_event.h"
#include "serve/openai/request.h"

namespace tandem {

struct AnswerHead {
  Endpoint endpoint = Endpoint::kChat;
  std::string id, model;
  std::int64_t created = 0;  // unix seconds
};

struct Usage {
  std::int64_t prompt_tokens = 0, cached_tokens = 0, answer_tokens = 0;
};

OrderedJson usage_json(const Usage& usage);
// null for kNone.
OrderedJson finish_json(FinishReason reason);

// Log probabilities of tokens in the shape of the endpoint. offset: where the first token's text begins in the answer;
// the older interface tells it.
OrderedJson logprobs_json(Endpoint endpoint, std::span<const SampledToken> tokens, const Tokenizer& tokenizer,
                          std::size_t offset);

// The frame of a whole answer and of a chunk; choices is an array.
OrderedJson answer_json(const AnswerHead& head, OrderedJson choices, const Usage& usage);
OrderedJson chunk_json(const AnswerHead& head, OrderedJson choices);

// An assistant's whole message, put together from its events.
struct ChatMessage {
  struct Call {
    std::string id, name, arguments;
  };
  std::string content, reasoning;
  std::vector<Call> calls;
};

// One choice: of the older interface (whole and chunk alike), of a whole chat answer, of a chunk of one. logprobs is
// null unless asked for, finish is null or a reason.
OrderedJson text_choice(std::int64_t index, std::string text, OrderedJson logprobs, OrderedJson finish);
OrderedJson chat_choice(std::int64_t index, ChatMessage message, OrderedJson logprobs, OrderedJson finish);
OrderedJson chunk_choice(std::int64_t index, OrderedJson delta, OrderedJson logprobs, OrderedJson finish);
// The deltas of chunks: what opens an assistant's answer, and what an event adds. call_id: of the event's call.
OrderedJson opening_delta();
OrderedJson delta_of(const AnswerEvent& event, const std::string& call_id);

// A server-sent event.
std::string event_of(const OrderedJson& data);
inline constexpr std::string_view kLastEvent = "data: [DONE]\n\n";

std::string json_text(const OrderedJson& value);

}  // namespace tandem
