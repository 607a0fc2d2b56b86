// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "serve/openai/response.h"

#include <cmath>

namespace tandem {

namespace {

constexpr const char* kFingerprint = "tandem-0.1";

// JSON knows no infinity; a token that cannot come is as unlikely as a number can say.
double finite(float logprob) {
  return std::isfinite(logprob) ? logprob : -9999.0;
}

OrderedJson bytes_json(const std::string& bytes) {
  OrderedJson list = OrderedJson::array();
  for (const char byte : bytes) list.push_back(static_cast<unsigned char>(byte));
  return list;
}

OrderedJson chat_logprobs(std::span<const SampledToken> tokens, const Tokenizer& tokenizer) {
  const auto entry = [&](std::int32_t id, float logprob) {
    const std::string& bytes = tokenizer.token_bytes(id);
    return OrderedJson{{"token", bytes}, {"logprob", finite(logprob)}, {"bytes", bytes_json(bytes)}};
  };
  OrderedJson content = OrderedJson::array();
  for (const SampledToken& token : tokens) {
    OrderedJson item = entry(token.id, token.logprob);
    item["top_logprobs"] = OrderedJson::array();
    for (const auto& [id, logprob] : token.top_logprobs) item["top_logprobs"].push_back(entry(id, logprob));
    content.push_back(std::move(item));
  }
  return {{"content", std::move(content)}, {"refusal", nullptr}};
}

OrderedJson text_logprobs(std::span<const SampledToken> tokens, const Tokenizer& tokenizer, std::size_t offset) {
  OrderedJson texts = OrderedJson::array(), logprobs = OrderedJson::array(), tops = OrderedJson::array(),
              offsets = OrderedJson::array();
  for (const SampledToken& token : tokens) {
    texts.push_back(tokenizer.token_bytes(token.id));
    logprobs.push_back(finite(token.logprob));
    OrderedJson top = OrderedJson::object();
    for (const auto& [id, logprob] : token.top_logprobs) top[tokenizer.token_bytes(id)] = finite(logprob);
    tops.push_back(std::move(top));
    offsets.push_back(offset);
    offset += tokenizer.token_bytes(token.id).size();
  }
  return {{"tokens", std::move(texts)},
          {"token_logprobs", std::move(logprobs)},
          {"top_logprobs", std::move(tops)},
          {"text_offset", std::move(offsets)}};
}

OrderedJson frame(const AnswerHead& head, const char* object, OrderedJson choices) {
  return {{"id", head.id},
          {"object", object},
          {"created", head.created},
          {"model", head.model},
          {"system_fingerprint", kFingerprint},
          {"choices", std::move(choices)}};
}

}  // namespace

OrderedJson usage_json(const Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.answer_tokens},
          {"total_tokens", usage.prompt_tokens + usage.answer_tokens},
          {"prompt_tokens_details", {{"cached_tokens", usage.cached_tokens}}}};
}

OrderedJson finish_json(FinishReason reason) {
  if (reason == FinishReason::kNone) return nullptr;
  return name(reason);
}

OrderedJson logprobs_json(Endpoint endpoint, std::span<const SampledToken> tokens, const Tokenizer& tokenizer,
                          std::size_t offset) {
  return endpoint == Endpoint::kChat ? chat_logprobs(tokens, tokenizer) : text_logprobs(tokens, tokenizer, offset);
}

OrderedJson answer_json(const AnswerHead& head, OrderedJson choices, const Usage& usage) {
  OrderedJson answer =
      frame(head, head.endpoint == Endpoint::kChat ? "chat.completion" : "text_completion", std::move(choices));
  answer["usage"] = usage_json(usage);
  return answer;
}

OrderedJson chunk_json(const AnswerHead& head, OrderedJson choices) {
  return frame(head, head.endpoint == Endpoint::kChat ? "chat.completion.chunk" : "text_completion",
               std::move(choices));
}

OrderedJson text_choice(std::int64_t index, std::string text, OrderedJson logprobs, OrderedJson finish) {
  return {{"index", index},
          {"text", std::move(text)},
          {"logprobs", std::move(logprobs)},
          {"finish_reason", std::move(finish)}};
}

OrderedJson chat_choice(std::int64_t index, ChatMessage message, OrderedJson logprobs, OrderedJson finish) {
  const bool only_other = message.content.empty() && (!message.reasoning.empty() || !message.calls.empty());
  OrderedJson json{{"role", "assistant"},
                   {"content", only_other ? OrderedJson() : OrderedJson(std::move(message.content))},
                   {"refusal", nullptr}};
  if (!message.reasoning.empty()) json["reasoning_content"] = std::move(message.reasoning);
  for (ChatMessage::Call& call : message.calls)
    json["tool_calls"].push_back(
        {{"id", std::move(call.id)},
         {"type", "function"},
         {"function", {{"name", std::move(call.name)}, {"arguments", std::move(call.arguments)}}}});
  return {{"index", index},
          {"message", std::move(json)},
          {"logprobs", std::move(logprobs)},
          {"finish_reason", std::move(finish)}};
}

OrderedJson chunk_choice(std::int64_t index, OrderedJson delta, OrderedJson logprobs, OrderedJson finish) {
  return {{"index", index},
          {"delta", std::move(delta)},
          {"logprobs", std::move(logprobs)},
          {"finish_reason", std::move(finish)}};
}

OrderedJson opening_delta() {
  return {{"role", "assistant"}, {"content", ""}};
}

OrderedJson delta_of(const AnswerEvent& event, const std::string& call_id) {
  const auto call = [&](OrderedJson part) {
    OrderedJson json{{"index", event.call}};
    json.update(part);
    return OrderedJson{{"tool_calls", OrderedJson::array({std::move(json)})}};
  };
  switch (event.kind) {
    case AnswerEvent::Kind::kReasoning:
      return {{"reasoning_content", event.text}};
    case AnswerEvent::Kind::kContent:
      return {{"content", event.text}};
    case AnswerEvent::Kind::kCallBegin:
      return call({{"id", call_id}, {"type", "function"}, {"function", {{"name", event.text}, {"arguments", ""}}}});
    case AnswerEvent::Kind::kArguments:
      return call({{"function", {{"arguments", event.text}}}});
    case AnswerEvent::Kind::kCallEnd:
      break;
  }
  return OrderedJson::object();
}

std::string json_text(const OrderedJson& value) {
  return to_line(value);
}

std::string event_of(const OrderedJson& data) {
  return "data: " + json_text(data) + "\n\n";
}

}  // namespace tandem
