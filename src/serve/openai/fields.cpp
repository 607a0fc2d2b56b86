// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "serve/openai/fields.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/format.h"

namespace tandem {

namespace {

constexpr unsigned kChat = static_cast<unsigned>(Endpoint::kChat);
constexpr unsigned kText = static_cast<unsigned>(Endpoint::kCompletions);
constexpr unsigned kBoth = kChat | kText;
constexpr double kWhole = 9'007'199'254'740'992;  // whole numbers beyond are not told apart by a double
constexpr auto kYes = FieldUse::kSupported;
constexpr auto kNo = FieldUse::kUnsupported;
constexpr auto kIdle = FieldUse::kNoEffect;
using K = FieldKind;

void set_stop(RequestDraft& d, const FieldRow& row, const OrderedJson& value) {
  const RequestLimits& limits = d.scope->limits;
  const OrderedJson list = value.is_array() ? value : OrderedJson::array({value});
  if (static_cast<std::int64_t>(list.size()) > limits.stop_max)
    bad_field(row.name, format("has {} strings, limit is {} (--stop-max)", list.size(), limits.stop_max));
  for (const OrderedJson& item : list) {
    if (!item.is_string()) bad_field(row.name, "must be text or an array of texts");
    const auto& text = item.get_ref<const std::string&>();
    if (text.empty() || static_cast<std::int64_t>(text.size()) > limits.stop_bytes_max)
      bad_field(row.name, format("has a string of {} bytes, allowed are 1 to {} (--stop-bytes-max)", text.size(),
                                 limits.stop_bytes_max));
    d.request.options.stop.push_back(text);
  }
}

void set_logit_bias(RequestDraft& d, const FieldRow& row, const OrderedJson& value) {
  const std::int64_t limit = d.scope->limits.logit_bias_max;
  if (!value.is_object()) bad_field(row.name, R"(must be an object such as {"17": -2.5})");
  if (static_cast<std::int64_t>(value.size()) > limit)
    bad_field(row.name, format("has {} entries, limit is {} (--logit-bias-max)", value.size(), limit));
  for (const auto& [token, bias] : value.items()) {
    std::int32_t id = 0;
    const char* end = token.data() + token.size();
    const auto [rest, failure] = std::from_chars(token.data(), end, id);
    if (failure != std::errc() || rest != end || id < 0 || id >= d.scope->vocab)
      bad_field(row.name, format("has a key that is no token id, which are 0 to {}", d.scope->vocab - 1));
    if (!bias.is_number() || !(std::abs(bias.get<double>()) <= 100))
      bad_field(row.name, format("of token {} must be a number from -100 to 100", id));
    d.request.options.sampling.logit_bias.emplace_back(id, bias.get<float>());
  }
}

void set_stream_options(RequestDraft& d, const FieldRow& row, const OrderedJson& value) {
  if (!value.is_object()) bad_field(row.name, "must be an object");
  for (const auto& [key, item] : value.items()) {
    if (key != "include_usage") {
      ++d.request.unknown_fields;
      continue;
    }
    if (!item.is_boolean()) bad_field("stream_options.include_usage", "must be true or false");
    d.request.include_usage = item.get<bool>();
  }
}

// What a template may be told. Its own inputs are not among it, and nothing that could hold messages.
void set_variables(RequestDraft& d, const FieldRow& row, const OrderedJson& value) {
  if (!value.is_object()) bad_field(row.name, "must be an object");
  for (const auto& [key, item] : value.items()) {
    for (const char* own : {"messages", "tools", "bos_token", "eos_token", "add_generation_prompt"})
      if (key == own) bad_field(row.name, format("must not set {}", own));
    if (item.is_structured()) bad_field(row.name, "must have values that are text, numbers, true, false or null");
    d.variables[key] = item;
  }
}

void set_salt(RequestDraft& d, const FieldRow& row, const OrderedJson& value) {
  d.request.cache_salt = value.get<std::string>();
  const auto bytes = static_cast<std::int64_t>(d.request.cache_salt.size());
  if (bytes == 0 || bytes > d.scope->limits.salt_bytes_max)
    bad_field(row.name,
              format("has {} bytes, allowed are 1 to {} (--salt-bytes-max)", bytes, d.scope->limits.salt_bytes_max));
}

template <auto Member>
void set_sampling(RequestDraft& d, const FieldRow&, const OrderedJson& value) {
  auto& member = d.request.options.sampling.*Member;
  member = value.get<std::remove_reference_t<decltype(member)>>();
}

// So close to 0 that dividing by it would leave the range of a float: it is 0.
void set_temperature(RequestDraft& d, const FieldRow&, const OrderedJson& value) {
  const auto temperature = value.get<float>();
  d.request.options.sampling.temperature = temperature < 1e-3F ? 0 : temperature;
}

void set_tokens_max(RequestDraft& d, const FieldRow&, const OrderedJson& value) {
  d.request.options.new_tokens_max = value.get<std::int32_t>();
}

void set_form(RequestDraft& d, const FieldRow& row, const OrderedJson& value) {
  d.forms.emplace_back(row.name, &value);
}

void set_prompt(RequestDraft& d, const FieldRow&, const OrderedJson& value) {
  d.prompt = &value;
}
void set_nothing(RequestDraft&, const FieldRow&, const OrderedJson&) {}

// clang-format off
constexpr FieldRow kRows[] = {
    {"model", kBoth, kYes, K::kText, "the name that /v1/models tells; may be left out", set_nothing},
    {"messages", kChat, kYes, K::kOther, "the conversation: objects with a role (system, developer, user, assistant, tool) and a content (text, or parts of type text and, of a user where the model sees pictures, image_url with a data URL or one of a host that --allow-remote-images names); of an assistant also tool_calls and reasoning_content", set_prompt},
    {"prompt", kText, kYes, K::kOther, "text, token ids, or an array of either", set_prompt},
    {"max_tokens", kBoth, kYes, K::kInteger, "longest answer; what the context has room for unless said (16 for completions)", set_tokens_max, 1, INT32_MAX},
    {"max_completion_tokens", kChat, kYes, K::kInteger, "the same; wins over max_tokens", set_tokens_max, 1, INT32_MAX},
    {"temperature", kBoth, kYes, K::kNumber, "0 is greedy; 1 unless said", set_temperature, 0, 2},
    {"top_p", kBoth, kYes, K::kNumber, "smallest set of tokens whose probability reaches it", set_sampling<&SamplingParams::top_p>, 0.0001, 1},
    {"top_k", kBoth, kYes, K::kInteger, "so many likeliest tokens; 0 and -1 are all", [](RequestDraft& d, const FieldRow&, const OrderedJson& v) { d.request.options.sampling.top_k = std::max(0, v.get<std::int32_t>()); }, -1, INT32_MAX},
    {"min_p", kBoth, kYes, K::kNumber, "least probability, as a part of the likeliest token's", set_sampling<&SamplingParams::min_p>, 0, 1},
    {"seed", kBoth, kYes, K::kInteger, "same request and seed, same answer", [](RequestDraft& d, const FieldRow&, const OrderedJson& v) { d.request.seed = static_cast<std::uint64_t>(v.get<std::int64_t>()); }, -0x1p63, 0x1p63},
    {"presence_penalty", kBoth, kYes, K::kNumber, "against tokens that the answer has", set_sampling<&SamplingParams::presence_penalty>, -2, 2},
    {"frequency_penalty", kBoth, kYes, K::kNumber, "the same, for each time", set_sampling<&SamplingParams::frequency_penalty>, -2, 2},
    {"repetition_penalty", kBoth, kYes, K::kNumber, "above 1: against tokens of prompt and answer", set_sampling<&SamplingParams::repetition_penalty>, 0.01, 100},
    {"logit_bias", kBoth, kYes, K::kOther, "token id to a number from -100 to 100 that is added to its logit", set_logit_bias},
    {"stop", kBoth, kYes, K::kOther, "text or texts that end the answer and are not part of it", set_stop},
    {"ignore_eos", kBoth, kYes, K::kBoolean, "go on after a token that ends an answer", [](RequestDraft& d, const FieldRow&, const OrderedJson& v) { d.request.options.ignore_stop_ids = v.get<bool>(); }},
    {"n", kBoth, kYes, K::kInteger, "answers to each prompt", [](RequestDraft& d, const FieldRow&, const OrderedJson& v) { d.request.n = v.get<std::int64_t>(); }, 1, 4096, &RequestLimits::choices_max},
    {"stream", kBoth, kYes, K::kBoolean, "answer as server-sent events while it is made", [](RequestDraft& d, const FieldRow&, const OrderedJson& v) { d.request.stream = v.get<bool>(); }},
    {"stream_options", kBoth, kYes, K::kOther, "include_usage: a last event with the counts of tokens", set_stream_options},
    {"logprobs", kChat, kYes, K::kBoolean, "tell the log probability of each token", [](RequestDraft& d, const FieldRow&, const OrderedJson& v) { d.chat_logprobs = v.get<bool>(); }},
    {"top_logprobs", kChat, kYes, K::kInteger, "and of so many likeliest ones; wants logprobs", [](RequestDraft& d, const FieldRow&, const OrderedJson& v) { d.top_logprobs = v.get<std::int64_t>(); }, 0, 32, &RequestLimits::top_logprobs_max},
    {"logprobs", kText, kYes, K::kInteger, "tell the log probability of each token and of so many likeliest ones", [](RequestDraft& d, const FieldRow&, const OrderedJson& v) { d.top_logprobs = v.get<std::int64_t>(); }, 0, 32, &RequestLimits::top_logprobs_max},
    {"echo", kText, kYes, K::kBoolean, "the answer begins with its prompt; not together with logprobs", [](RequestDraft& d, const FieldRow&, const OrderedJson& v) { d.request.echo = v.get<bool>(); }},
    {"tools", kChat, kYes, K::kOther, "functions that the answer may call: objects with type function and a function (name, description, parameters)", [](RequestDraft& d, const FieldRow&, const OrderedJson& v) { d.tools = &v; }},
    {"tool_choice", kChat, kYes, K::kOther, "auto, none, required, or one tool: an object with type function and a function with its name", [](RequestDraft& d, const FieldRow&, const OrderedJson& v) { d.tool_choice = &v; }},
    {"parallel_tool_calls", kChat, kYes, K::kBoolean, "false: at most one call in an answer", [](RequestDraft& d, const FieldRow&, const OrderedJson& v) { d.parallel_calls = v.get<bool>(); }},
    {"response_format", kBoth, kYes, K::kOther, "type text, json_object, or json_schema with its json_schema: the answer is JSON of that form", set_form},
    {"structured_outputs", kBoth, kYes, K::kOther, "one of json, json_object, regex, choice and grammar, as in the fields below", set_form},
    {"guided_json", kBoth, kYes, K::kOther, "a JSON schema that the answer follows", set_form},
    {"guided_regex", kBoth, kYes, K::kOther, "a regular expression that the whole answer matches", set_form},
    {"guided_choice", kBoth, kYes, K::kOther, "texts, one of which is the answer", set_form},
    {"guided_grammar", kBoth, kYes, K::kOther, "a Lark grammar that the answer follows", set_form},
    {"cache_salt", kBoth, kYes, K::kText, "only requests with the same salt share cached prefixes with this one", set_salt},
    {"chat_template_kwargs", kChat, kYes, K::kOther, "variables for the chat template; text, numbers, true, false or null", set_variables},

    {"user", kBoth, kIdle, K::kOther, "who asks"},
    {"metadata", kBoth, kIdle, K::kOther, "words for the client's own records"},
    {"safety_identifier", kBoth, kIdle, K::kOther, "who asks"},
    {"prompt_cache_key", kBoth, kIdle, K::kOther, "prefixes are found by their tokens"},
    {"prompt_cache_retention", kBoth, kIdle, K::kOther, "prefixes are kept while there is room"},
    {"request_id", kBoth, kIdle, K::kOther, "answers bear an id of the server's"},

    {"functions", kChat, kNo, K::kOther, "the older form of tools", nullptr, 0, 0, nullptr, "[[]]"},
    {"function_call", kChat, kNo, K::kOther, "the older form of tool_choice", nullptr, 0, 0, nullptr, R"(["none","auto"])"},
    {"reasoning_effort", kChat, kNo, K::kOther, "how long to think"},
    {"modalities", kChat, kNo, K::kOther, "answers that are not text", nullptr, 0, 0, nullptr, R"([["text"]])"},
    {"audio", kChat, kNo, K::kOther, "spoken answers"},
    {"prediction", kChat, kNo, K::kOther, "an answer that is mostly known"},
    {"web_search_options", kChat, kNo, K::kOther, "search"},
    {"verbosity", kChat, kNo, K::kOther, "length of answers", nullptr, 0, 0, nullptr, R"(["medium"])"},
    {"service_tier", kBoth, kNo, K::kOther, "price and speed", nullptr, 0, 0, nullptr, R"(["auto","default"])"},
    {"store", kBoth, kNo, K::kOther, "keep the answer on the server", nullptr, 0, 0, nullptr, "[false]"},
    {"best_of", kText, kNo, K::kOther, "the best of several answers", nullptr, 0, 0, nullptr, "[1]"},
    {"suffix", kText, kNo, K::kOther, "text after the answer", nullptr, 0, 0, nullptr, R"([""])"},
    {"use_beam_search", kBoth, kNo, K::kOther, "beam search", nullptr, 0, 0, nullptr, "[false]"},
    {"length_penalty", kBoth, kNo, K::kOther, "of beam search", nullptr, 0, 0, nullptr, "[1]"},
    {"min_tokens", kBoth, kNo, K::kOther, "shortest answer", nullptr, 0, 0, nullptr, "[0]"},
    {"stop_token_ids", kBoth, kNo, K::kOther, "tokens that end the answer", nullptr, 0, 0, nullptr, "[[]]"},
    {"include_stop_str_in_output", kBoth, kNo, K::kOther, "the stop string as part of the answer", nullptr, 0, 0, nullptr, "[false]"},
    {"skip_special_tokens", kBoth, kNo, K::kOther, "control tokens in answers", nullptr, 0, 0, nullptr, "[true]"},
    {"bad_words", kBoth, kNo, K::kOther, "words that must not come", nullptr, 0, 0, nullptr, "[[]]"},
    {"allowed_token_ids", kBoth, kNo, K::kOther, "the only tokens that may come"},
    {"prompt_logprobs", kBoth, kNo, K::kOther, "log probabilities of the prompt"},
    {"truncate_prompt_tokens", kBoth, kNo, K::kOther, "prompts that are cut"},
    {"priority", kBoth, kNo, K::kOther, "an order of requests", nullptr, 0, 0, nullptr, "[0]"},
    {"chat_template", kChat, kNo, K::kOther, "a template from the client"},
    {"documents", kChat, kNo, K::kOther, "texts for the template", nullptr, 0, 0, nullptr, "[[]]"},
    {"add_generation_prompt", kChat, kNo, K::kOther, "prompts that do not end where an answer begins", nullptr, 0, 0, nullptr, "[true]"},
    {"continue_final_message", kChat, kNo, K::kOther, "answers that go on with the last message", nullptr, 0, 0, nullptr, "[false]"},
};
// clang-format on

void check_number(const FieldRow& row, const OrderedJson& value, const RequestLimits& limits) {
  const bool whole = row.kind == FieldKind::kInteger;
  if (whole ? !value.is_number_integer() : !value.is_number())
    bad_field(row.name, whole ? "must be a whole number" : "must be a number");
  const double max = row.limit ? std::min(row.max, static_cast<double>(limits.*row.limit)) : row.max;
  const double number = value.get<double>();
  const bool too_wide =
      value.is_number_unsigned() && value.get<std::uint64_t>() > static_cast<std::uint64_t>(INT64_MAX);
  if (number >= row.min && number <= max && !too_wide) return;
  if (std::abs(row.min) > kWhole) bad_field(row.name, "must be a whole number that 64 bits hold");
  bad_field(row.name, format("is {}, must be {} to {}", value.dump(), row.min, max));
}

void check_unsupported(const FieldRow& row, const OrderedJson& value) {
  const OrderedJson neutral = OrderedJson::parse(row.neutral);
  if (std::ranges::find(neutral, value) == neutral.end())
    throw ApiError(400, format("{} is not supported", row.name), std::string(row.name), "unsupported_parameter");
}

}  // namespace

void bad_field(std::string_view field, std::string_view problem) {
  throw ApiError(400, format("{} {}", field, problem), std::string(field), "invalid_value");
}

std::span<const FieldRow> field_rows() {
  return kRows;
}

const FieldRow* find_field(std::string_view name, Endpoint endpoint) {
  const auto found = std::ranges::find_if(kRows, [&](const FieldRow& row) {
    return row.name == name && (row.endpoints & static_cast<unsigned>(endpoint)) != 0;
  });
  return found == std::end(kRows) ? nullptr : &*found;
}

void set_field(RequestDraft& draft, const FieldRow& row, const OrderedJson& value) {
  if (value.is_null() || row.use == FieldUse::kNoEffect) return;
  if (row.use == FieldUse::kUnsupported) return check_unsupported(row, value);
  if (row.kind == FieldKind::kNumber || row.kind == FieldKind::kInteger) check_number(row, value, draft.scope->limits);
  if (row.kind == FieldKind::kBoolean && !value.is_boolean()) bad_field(row.name, "must be true or false");
  if (row.kind == FieldKind::kText && !value.is_string()) bad_field(row.name, "must be text");
  row.set(draft, row, value);
}

}  // namespace tandem
