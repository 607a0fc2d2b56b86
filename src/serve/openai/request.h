// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The body of /v1/chat/completions and /v1/completions, read into native types: after this there is no JSON left and
// every number is within its range. What a field may be is one row of a table (fields.cpp), which also makes the docs.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "chat_format/chat_format.h"
#include "chat_format/tool_schemas.h"
#include "model/config.h"
#include "serve/openai/api_error.h"
#include "serve/remote/remote_pictures.h"
#include "serve/settings.h"
#include "session/text_session.h"
#include "text/grammar.h"

namespace tandem {

enum class Endpoint : unsigned { kChat = 1, kCompletions = 2 };

// What a request is read against. All of it is fixed while the server runs.
struct RequestScope {
  const OpenModel& model;
  const RequestLimits& limits;
  const GrammarVocabulary& grammars;  // of the model
  std::string model_name;
  std::int32_t vocab = 0;
  std::int64_t context_tokens_max = 0, kv_tokens = 0;
  ChatFormat format = {};
  RemotePictures* remote = nullptr;  // whoever fetches pictures that URLs name; null: nobody

  // Tokens that one prompt may have.
  std::int64_t prompt_tokens_max() const {
    const std::int64_t room = context_tokens_max - 1;
    return limits.prompt_tokens_max == 0 ? room : std::min(room, limits.prompt_tokens_max);
  }
};

struct CompletionRequest {
  struct Prompt {
    std::vector<std::int32_t> ids;
    std::vector<PlacedPicture> pictures;  // among the ids
    std::string text;                     // for echo
    std::int32_t new_tokens_max = 0;      // of each answer to it
  };
  Endpoint endpoint = Endpoint::kChat;
  std::vector<Prompt> prompts;
  TextRequest options;                // of every choice; without prompt and, when the client said none, new_tokens_max
  std::int64_t n = 1;                 // choices for each prompt
  std::optional<std::uint64_t> seed;  // none: drawn for each choice
  std::string cache_salt;
  bool stream = false, include_usage = false, echo = false, logprobs = false;
  std::int64_t unknown_fields = 0;  // passed over
  // How answers of a chat are read.
  ReasoningParser::Start start = ReasoningParser::Start::kContent;
  const CallSyntax* calls = nullptr;  // none: no tool may be called
  std::shared_ptr<const ToolSchemas> schemas;
  bool parallel_calls = true;
  std::shared_ptr<const Grammar> grammar;  // of every answer, at its beginning; none: answers are free

  std::int64_t choices() const { return n * static_cast<std::int64_t>(prompts.size()); }
};

// body is the text of the request. Throws ApiError naming the field.
CompletionRequest read_completion_request(std::string_view body, Endpoint endpoint, const RequestScope& scope);

// The pieces, for routes that take prompts but complete nothing.
OrderedJson read_object(std::string_view body, const RequestLimits& limits);
void check_model_name(const OrderedJson& object, const RequestScope& scope);
PicturePrompt read_messages(const OrderedJson& messages, const OrderedJson& variables, const RequestScope& scope,
                            const OrderedJson& tools = nullptr);
std::vector<std::int32_t> read_token_ids(std::string_view field, const OrderedJson& value, const RequestScope& scope);

}  // namespace tandem
