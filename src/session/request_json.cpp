// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "session/request_json.h"

#include <charconv>
#include <functional>
#include <limits>
#include <unordered_map>

#include "base/error.h"
#include "base/format.h"

namespace tandem {

namespace {

[[noreturn]] void wrong(std::string_view key, std::string_view expected) {
  throw Error(ErrorCode::kInvalidArgument, format("\"{}\" must be {}", key, expected));
}

float number(std::string_view key, const OrderedJson& value) {
  if (!value.is_number()) wrong(key, "a number");
  return value.get<float>();
}

// A whole number that an int of 64 bits holds.
std::int64_t whole(std::string_view key, const OrderedJson& value) {
  if (!value.is_number_integer()) wrong(key, "a whole number");
  if (value.is_number_unsigned() && value.get<std::uint64_t>() > static_cast<std::uint64_t>(INT64_MAX))
    wrong(key, "a smaller number");
  return value.get<std::int64_t>();
}

std::int32_t whole_32(std::string_view key, const OrderedJson& value, std::int32_t low) {
  const std::int64_t read = whole(key, value);
  if (read < low || read > INT32_MAX) wrong(key, format("a whole number from {} to {}, not {}", low, INT32_MAX, read));
  return static_cast<std::int32_t>(read);
}

std::vector<std::string> strings(std::string_view key, const OrderedJson& value) {
  std::vector<std::string> all;
  for (const OrderedJson& item : value.is_array() ? value : OrderedJson::array({value})) {
    if (!item.is_string()) wrong(key, "text or an array of texts");
    all.push_back(item.get<std::string>());
  }
  return all;
}

std::vector<std::pair<std::int32_t, float>> logit_bias(std::string_view key, const OrderedJson& value) {
  if (!value.is_object()) wrong(key, R"(an object such as {"17": -2.5})");
  std::vector<std::pair<std::int32_t, float>> all;
  for (const auto& [token, bias] : value.items()) {
    std::int32_t id = 0;
    const auto [end, failure] = std::from_chars(token.data(), token.data() + token.size(), id);
    if (failure != std::errc() || end != token.data() + token.size()) wrong(key, "an object whose keys are token ids");
    all.emplace_back(id, number(key, bias));
  }
  return all;
}

std::vector<std::int32_t> ids(std::string_view key, const OrderedJson& value) {
  if (!value.is_array()) wrong(key, "an array of token ids");
  std::vector<std::int32_t> all;
  for (const OrderedJson& id : value) all.push_back(whole_32(key, id, 0));
  return all;
}

using Setter = std::function<void(TextRequest&, std::string_view key, const OrderedJson& value)>;

// Every option of a request: the key and what it sets.
const std::unordered_map<std::string_view, Setter>& options() {
  static const std::unordered_map<std::string_view, Setter> table{
      {"max_tokens", [](auto& r, auto key, auto& v) { r.new_tokens_max = whole_32(key, v, 1); }},
      {"stop", [](auto& r, auto key, auto& v) { r.stop = strings(key, v); }},
      {"temperature", [](auto& r, auto key, auto& v) { r.sampling.temperature = number(key, v); }},
      {"top_p", [](auto& r, auto key, auto& v) { r.sampling.top_p = number(key, v); }},
      {"top_k", [](auto& r, auto key, auto& v) { r.sampling.top_k = whole_32(key, v, 0); }},
      {"min_p", [](auto& r, auto key, auto& v) { r.sampling.min_p = number(key, v); }},
      {"seed", [](auto& r, auto key, auto& v) { r.sampling.seed = static_cast<std::uint64_t>(whole(key, v)); }},
      {"repetition_penalty", [](auto& r, auto key, auto& v) { r.sampling.repetition_penalty = number(key, v); }},
      {"presence_penalty", [](auto& r, auto key, auto& v) { r.sampling.presence_penalty = number(key, v); }},
      {"frequency_penalty", [](auto& r, auto key, auto& v) { r.sampling.frequency_penalty = number(key, v); }},
      {"logprobs", [](auto& r, auto key, auto& v) { r.sampling.logprobs = whole_32(key, v, 0); }},
      {"logit_bias", [](auto& r, auto key, auto& v) { r.sampling.logit_bias = logit_bias(key, v); }},
  };
  return table;
}

// A file of this machine, or a data URL.
std::shared_ptr<const PictureToSee> picture_of(const OrderedJson& part) {
  if (part["type"] == "image_url") return open_picture_url(part.value("image_url", OrderedJson()));
  if (!part.contains("path") || !part["path"].is_string()) wrong("path", "the name of a picture's file");
  return open_picture_file(part["path"].get<std::string>());
}

PicturePrompt conversation_of(OrderedJson messages, const OpenModel& model) {
  const Pictures pictures = take_pictures(messages, PictureRules(), picture_of);
  return model.picture_prompt(messages, pictures);
}

PicturePrompt prompt_of(const OrderedJson& object, const OpenModel& model, bool as_chat) {
  const int forms = object.contains("prompt") + object.contains("messages") + object.contains("prompt_ids");
  if (forms != 1)
    throw Error(ErrorCode::kInvalidArgument,
                format("a request has one of \"prompt\", \"messages\" and \"prompt_ids\", this one has {}", forms));
  if (object.contains("prompt_ids")) return model.with_pictures(ids("prompt_ids", object["prompt_ids"]), {});
  if (object.contains("messages")) return conversation_of(object["messages"], model);
  if (!object["prompt"].is_string()) wrong("prompt", "text");
  const auto& text = object["prompt"].get_ref<const std::string&>();
  if (as_chat) return conversation_of(OrderedJson::array({{{"role", "user"}, {"content", text}}}), model);
  return {model.text_prompt(text), {}};
}

bool is_form(std::string_view key) {
  return key == "json_schema" || key == "regex" || key == "choice" || key == "grammar";
}

}  // namespace

AnswerForm read_form(std::string_view key, const OrderedJson& value) {
  if (key == "json_schema") {
    if (!value.is_object()) wrong(key, "a JSON schema, an object");
    return {GrammarKind::kJsonSchema, schema_source(value)};
  }
  if (key == "choice") {
    const std::vector<std::string> texts = value.is_array() ? strings(key, value) : std::vector<std::string>();
    if (texts.empty()) wrong(key, "an array of at least one text");
    return {GrammarKind::kLark, lark_choice(texts)};
  }
  if (!value.is_string()) wrong(key, "text");
  return {key == "regex" ? GrammarKind::kRegex : GrammarKind::kLark, value.get<std::string>()};
}

JsonRequest read_request(const OrderedJson& object, const OpenModel& model, const TextRequest& defaults, bool as_chat) {
  if (!object.is_object()) throw Error(ErrorCode::kInvalidArgument, "a request must be an object");
  JsonRequest read{.id = request_id(object), .request = defaults};
  for (const auto& [key, value] : object.items()) {
    if (key == "id" || key == "prompt" || key == "messages" || key == "prompt_ids") continue;
    if (is_form(key)) {
      if (read.form) throw Error(ErrorCode::kInvalidArgument, "a request has one form of its answer at most");
      read.form = read_form(key, value);
      continue;
    }
    const auto option = options().find(key);
    if (option == options().end())
      throw Error(ErrorCode::kInvalidArgument, format("\"{}\" is no option of a request", key));
    option->second(read.request, key, value);
  }
  PicturePrompt prompt = prompt_of(object, model, as_chat);
  read.request.prompt = std::move(prompt.ids);
  read.request.pictures = std::move(prompt.pictures);
  read.conversation = object.contains("messages") || (as_chat && object.contains("prompt"));
  return read;
}

OrderedJson request_id(const OrderedJson& object) {
  return object.is_object() && object.contains("id") ? object["id"] : OrderedJson();
}

}  // namespace tandem
