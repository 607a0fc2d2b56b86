// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "serve/openai/request.h"

#include <algorithm>
#include <array>

#include "base/format.h"
#include "serve/openai/fields.h"
#include "serve/openai/structured.h"
#include "serve/openai/tools.h"

namespace tandem {

namespace {

constexpr std::int32_t kCompletionTokensDefault = 16;

void check_prompt_length(std::string_view field, std::size_t tokens, const RequestScope& scope) {
  const std::int64_t limit = scope.prompt_tokens_max();
  if (tokens == 0) bad_field(field, "has no token, must have at least 1");
  if (static_cast<std::int64_t>(tokens) > limit)
    throw ApiError(
        400,
        format("{} has {} tokens, limit is {} (--prompt-tokens-max, --context-tokens-max less one for the answer)",
               field, tokens, limit),
        std::string(field), "context_length_exceeded");
}

// The contents of a conversation's messages: text, and pictures in the order in which they come.
class ContentReader {
 public:
  explicit ContentReader(const RequestScope& scope) : scope_(scope) {
    rules_.count_max = scope.limits.pictures_max;
    rules_.file.bytes_max = static_cast<std::size_t>(scope.limits.picture_bytes_max);
    rules_.file.pixels_max = rules_.crops.pixels_max = scope.limits.picture_pixels_max;
    rules_.pixels_max = 3 * scope.limits.picture_pixels_max;
    if (!scope.remote) return;
    allowance_.emplace(*scope.remote);
    fetch_ = [this](const std::string& url, std::size_t bytes_max) {
      return scope_.remote->fetch(url, bytes_max, *allowance_);
    };
  }

  // A content as templates take it: text, its parts one below the other; with pictures, the parts themselves.
  OrderedJson read(const OrderedJson& content, const std::string& field, bool of_user) {
    if (content.is_string() || content.is_null()) return content.is_null() ? OrderedJson("") : content;
    if (!content.is_array()) bad_field(field, "must be text or an array of parts");
    OrderedJson parts = OrderedJson::array();
    std::string text;
    const std::size_t pictures_before = pictures_.size();
    for (const OrderedJson& part : content) {
      parts.push_back(read_part(part, field, of_user));
      if (parts.back()["type"] != "text") continue;
      if (!text.empty()) text += '\n';
      text += parts.back()["text"].get_ref<const std::string&>();
    }
    return pictures_.size() > pictures_before ? parts : OrderedJson(text);
  }
  const Pictures& pictures() const { return pictures_; }

 private:
  OrderedJson read_part(const OrderedJson& part, const std::string& field, bool of_user) {
    if (!part.is_object() || !part.contains("type") || !part["type"].is_string())
      bad_field(field, "has a part without a type");
    if (part["type"] == "text") {
      if (!part.contains("text") || !part["text"].is_string()) bad_field(field, "has a part of type text without text");
      return {{"type", "text"}, {"text", part["text"]}};
    }
    if (part["type"] != "image_url")
      throw ApiError(400, format("{}: parts other than text and image_url are not supported", field), field,
                     "unsupported_parameter");
    if (!scope_.model.picture_tokens)
      throw ApiError(400, format("{}: this model sees no pictures", field), field, "unsupported_parameter");
    if (!of_user) bad_field(field, "has a picture, which is for messages of a user");
    if (!part.contains("image_url")) bad_field(field, "has a part of type image_url without image_url");
    try {
      if (std::ssize(pictures_) >= rules_.count_max) add_picture(pictures_, nullptr, rules_);  // before it is fetched
      add_picture(pictures_, open_picture_url(part["image_url"], rules_, fetch_), rules_);
    } catch (const Error& error) {
      if (error.code() == ErrorCode::kUnavailable)
        throw ApiError(429, format("{}: {}", field, error.message()), field, "rate_limit_exceeded");
      // The client's mistake, whatever limit it is.
      throw ApiError(400, format("{}: {}", field, error.message()), field, "invalid_image");
    }
    return {{"type", "image"}};
  }

  const RequestScope& scope_;
  PictureRules rules_;
  Pictures pictures_;
  std::optional<RemotePictures::Allowance> allowance_;  // of the conversation
  RemoteFetch fetch_;
};

OrderedJson read_message(const OrderedJson& message, std::size_t index, const RequestLimits& limits,
                         ContentReader& contents) {
  constexpr std::array kRoles = {"system", "developer", "user", "assistant", "tool"};
  const std::string field = format("messages[{}]", index);
  if (!message.is_object()) bad_field(field, "must be an object");
  const auto role = message.find("role");
  if (role == message.end() || !role->is_string() ||
      std::ranges::none_of(kRoles, [&](const char* known) { return *role == known; }))
    bad_field(field + ".role", "must be system, developer, user, assistant or tool");
  OrderedJson read;
  read["role"] = *role == "developer" ? OrderedJson("system") : *role;  // templates know one word for it
  if (!message.contains("content") && *role != "assistant") bad_field(field + ".content", "is missing");
  const auto content = message.find("content");
  read["content"] =
      content == message.end() ? OrderedJson("") : contents.read(*content, field + ".content", *role == "user");
  for (const char* key : {"name", "tool_call_id", "reasoning_content"}) {
    const auto value = message.find(key);
    if (value == message.end() || value->is_null()) continue;
    if (!value->is_string()) bad_field(format("{}.{}", field, key), "must be text");
    read[key] = *value;
  }
  if (const auto calls = message.find("tool_calls"); calls != message.end() && !calls->is_null() && !calls->empty()) {
    if (*role != "assistant") bad_field(field + ".tool_calls", "is for messages of an assistant");
    read["tool_calls"] = read_tool_calls(*calls, field + ".tool_calls", limits);
  }
  for (const char* key : {"function_call", "audio"})
    if (const auto value = message.find(key); value != message.end() && !value->is_null() && !value->empty())
      throw ApiError(400, format("{}.{} is not supported", field, key), format("{}.{}", field, key),
                     "unsupported_parameter");
  return read;
}

// A template that takes too many steps will take them again: no use in saying that there is no room at the moment.
PicturePrompt render(const OrderedJson& messages, const Pictures& pictures, const OrderedJson& variables,
                     const OrderedJson& tools, const RequestScope& scope) {
  try {
    return scope.model.picture_prompt(messages, pictures, variables, tools);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kOutOfResources) throw;
    throw ApiError(400, error.message(), "messages", "invalid_value");
  }
}

CompletionRequest::Prompt read_prompt(const OrderedJson& value, const RequestScope& scope, bool echo) {
  CompletionRequest::Prompt prompt;
  if (value.is_string()) {
    prompt.ids = scope.model.text_prompt(value.get_ref<const std::string&>());
    if (echo) prompt.text = value.get<std::string>();
  } else {
    prompt.ids = scope.model.with_pictures(read_token_ids("prompt", value, scope), {}).ids;
    if (echo) prompt.text = scope.model.tokenizer.decode(prompt.ids);
  }
  check_prompt_length("prompt", prompt.ids.size(), scope);
  return prompt;
}

// "text", [1, 2], ["text", "text"] or [[1, 2], [3]].
void read_prompts(RequestDraft& draft) {
  const OrderedJson& value = *draft.prompt;
  CompletionRequest& request = draft.request;
  const bool many = value.is_array() && !value.empty() && !value.front().is_number();
  if (!value.is_string() && !value.is_array()) bad_field("prompt", "must be text, token ids, or an array of either");
  const std::size_t count = many ? value.size() : 1;
  const std::int64_t limit = draft.scope->limits.prompts_max;
  if (static_cast<std::int64_t>(count) > limit)
    bad_field("prompt", format("has {} prompts, limit is {} (--prompts-max)", count, limit));
  request.grammar = read_grammar(draft, {});
  for (std::size_t i = 0; i < count; ++i)
    request.prompts.push_back(read_prompt(many ? value[i] : value, *draft.scope, request.echo));
}

// The conversation and how its answer is to be read.
void read_chat(RequestDraft& draft) {
  const RequestScope& scope = *draft.scope;
  CompletionRequest& request = draft.request;
  const ToolUse use = read_tools(draft);
  PicturePrompt prompt = read_messages(*draft.prompt, draft.variables, scope, use.for_template());
  request.prompts.push_back({.ids = std::move(prompt.ids), .pictures = std::move(prompt.pictures)});
  const std::vector<std::int32_t>& ids = request.prompts.front().ids;
  const auto end = std::span(ids).last(std::min(ids.size(), kPromptEndTokens));
  request.start = scope.format.start_after(scope.model.tokenizer.decode(end));
  request.options.shown = scope.format.marks;
  request.parallel_calls = draft.parallel_calls;
  request.grammar = read_grammar(draft, use);
  if (!use.may_call()) return;
  request.calls = scope.format.calls;
  request.schemas = std::make_shared<const ToolSchemas>(use.tools);
}

void read_logprobs(RequestDraft& draft) {
  CompletionRequest& request = draft.request;
  if (request.endpoint == Endpoint::kChat && draft.top_logprobs > 0 && !draft.chat_logprobs)
    bad_field("top_logprobs", "wants logprobs to be true");
  request.logprobs = request.endpoint == Endpoint::kChat ? draft.chat_logprobs : draft.top_logprobs >= 0;
  if (request.logprobs)
    request.options.sampling.logprobs = static_cast<std::int32_t>(std::max<std::int64_t>(draft.top_logprobs, 0));
  if (request.logprobs && request.echo)
    throw ApiError(400, "echo together with logprobs is not supported", "echo", "unsupported_parameter");
}

// How long an answer may be: what the client says, else what there is room for.
void set_lengths(RequestDraft& draft) {
  const RequestScope& scope = *draft.scope;
  const std::int64_t room_max =
      std::min(scope.context_tokens_max, scope.kv_tokens + 1);  // the last token needs no cache
  const std::int64_t asked = draft.request.options.new_tokens_max;
  for (CompletionRequest::Prompt& prompt : draft.request.prompts) {
    const auto tokens = static_cast<std::int64_t>(prompt.ids.size());
    const std::int64_t room = room_max - tokens;
    if (std::max<std::int64_t>(asked, 1) > room)
      throw ApiError(
          400,
          format("prompt of {} and answer of {} tokens exceed the context of {} (--context-tokens-max, --kv-tokens)",
                 tokens, std::max<std::int64_t>(asked, 1), room_max),
          "max_tokens", "context_length_exceeded");
    const bool chat = draft.request.endpoint == Endpoint::kChat;
    const std::int64_t unasked = chat ? room : std::min<std::int64_t>(room, kCompletionTokensDefault);
    prompt.new_tokens_max = static_cast<std::int32_t>(asked > 0 ? asked : unasked);
  }
}

}  // namespace

OrderedJson read_object(std::string_view body, const RequestLimits& limits) {
  if (body.find_first_not_of(" \t\r\n") == std::string_view::npos) throw ApiError(400, "request body is empty");
  OrderedJson object;
  try {
    object = parse_ordered_json(body, "request body",
                                {.bytes_max = body.size(),  // bounded when it was read
                                 .depth_max = static_cast<int>(limits.json_depth_max),
                                 .unique_keys = true,
                                 .keys_max = static_cast<std::size_t>(limits.json_keys_max),
                                 .values_max = static_cast<std::size_t>(limits.json_values_max)});
  } catch (const ApiError&) {
    throw;
  } catch (const Error& error) {
    throw ApiError(400, error.message(), {}, "invalid_json");
  }
  if (!object.is_object()) throw ApiError(400, "request body must be a JSON object", {}, "invalid_json");
  return object;
}

void check_model_name(const OrderedJson& object, const RequestScope& scope) {
  const auto name = object.find("model");
  if (name == object.end() || name->is_null()) return;
  if (!name->is_string()) bad_field("model", "must be text");
  if (*name != scope.model_name)
    throw ApiError(404, format("this server has no such model; it serves {}", scope.model_name), "model",
                   "model_not_found");
}

PicturePrompt read_messages(const OrderedJson& messages, const OrderedJson& variables, const RequestScope& scope,
                            const OrderedJson& tools) {
  if (!scope.model.chat_template)
    throw ApiError(400, "this model has no chat template: use /v1/completions", "messages", "unsupported_parameter");
  if (!messages.is_array() || messages.empty()) bad_field("messages", "must be an array of at least one message");
  if (static_cast<std::int64_t>(messages.size()) > scope.limits.messages_max)
    bad_field("messages",
              format("has {} messages, limit is {} (--messages-max)", messages.size(), scope.limits.messages_max));
  OrderedJson read = OrderedJson::array();
  ContentReader contents(scope);
  for (std::size_t i = 0; i < messages.size(); ++i)
    read.push_back(read_message(messages[i], i, scope.limits, contents));
  PicturePrompt prompt = render(read, contents.pictures(), variables, tools, scope);
  check_prompt_length("messages", prompt.ids.size(), scope);
  return prompt;
}

std::vector<std::int32_t> read_token_ids(std::string_view field, const OrderedJson& value, const RequestScope& scope) {
  if (!value.is_array()) bad_field(field, "must be text or an array of token ids");
  if (static_cast<std::int64_t>(value.size()) > scope.prompt_tokens_max())
    check_prompt_length(field, value.size(), scope);
  std::vector<std::int32_t> ids;
  ids.reserve(value.size());
  for (const OrderedJson& id : value) {
    if (!id.is_number_integer()) bad_field(field, "has a token id that is no whole number");
    const bool known = id.is_number_unsigned() && id.get<std::uint64_t>() < static_cast<std::uint64_t>(scope.vocab);
    if (!known) bad_field(field, format("has the token id {}, allowed are 0 to {}", id.dump(), scope.vocab - 1));
    ids.push_back(id.get<std::int32_t>());
  }
  return ids;
}

CompletionRequest read_completion_request(std::string_view body, Endpoint endpoint, const RequestScope& scope) {
  const OrderedJson object = read_object(body, scope.limits);
  check_model_name(object, scope);
  RequestDraft draft;
  draft.scope = &scope;
  CompletionRequest& request = draft.request;
  request.endpoint = endpoint;
  request.options.sampling.temperature = 1;
  for (const auto& [name, value] : object.items()) {
    if (const FieldRow* row = find_field(name, endpoint))
      set_field(draft, *row, value);
    else
      ++request.unknown_fields;
  }
  if (const auto tokens = object.find("max_completion_tokens"); endpoint == Endpoint::kChat && tokens != object.end())
    set_field(draft, *find_field("max_completion_tokens", endpoint), *tokens);  // wins, wherever it stood
  if (object.contains("stream_options") && !object["stream_options"].is_null() && !request.stream)
    bad_field("stream_options", "wants stream to be true");
  read_logprobs(draft);
  if (!draft.prompt) bad_field(endpoint == Endpoint::kChat ? "messages" : "prompt", "is missing");
  if (endpoint == Endpoint::kChat)
    read_chat(draft);
  else
    read_prompts(draft);
  if (request.choices() > scope.limits.choices_max)
    bad_field("n", format("times {} prompts is more than {} answers (--choices-max)", request.prompts.size(),
                          scope.limits.choices_max));
  set_lengths(draft);
  return std::move(draft.request);
}

}  // namespace tandem
