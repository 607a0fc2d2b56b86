// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "serve/openai/structured.h"

#include <optional>
#include <utility>

#include "base/format.h"
#include "chat_format/call_grammar.h"
#include "serve/openai/fields.h"
#include "serve/openai/response.h"

namespace tandem {

namespace {

struct Form {
  std::string field;  // that asks for it
  GrammarKind kind = GrammarKind::kJsonSchema;
  std::string source;
};

std::string text_of(const std::string& field, const OrderedJson& value) {
  if (!value.is_string() || value.get_ref<const std::string&>().empty()) bad_field(field, "must be text");
  return value.get<std::string>();
}

Form schema_form(const std::string& field, const OrderedJson& value) {
  if (!value.is_object() && !value.is_string()) bad_field(field, "must be a JSON schema, an object");
  return {field, GrammarKind::kJsonSchema, value.is_string() ? value.get<std::string>() : json_text(value)};
}

Form choice_form(const std::string& field, const OrderedJson& value, const RequestLimits& limits) {
  if (!value.is_array() || value.empty()) bad_field(field, "must be an array of at least one text");
  if (static_cast<std::int64_t>(value.size()) > limits.json_keys_max)
    bad_field(field, format("has {} texts, limit is {} (--json-keys-max)", value.size(), limits.json_keys_max));
  std::vector<std::string> texts;
  for (const OrderedJson& text : value) texts.push_back(text_of(field, text));
  return {field, GrammarKind::kLark, lark_choice(texts)};
}

std::optional<Form> response_format(const OrderedJson& value) {
  if (!value.is_object() || !value.contains("type") || !value["type"].is_string())
    bad_field("response_format", "must be an object with a type");
  if (value["type"] == "text") return std::nullopt;
  if (value["type"] == "json_object") return Form{"response_format", GrammarKind::kJsonSchema, R"({"type":"object"})"};
  if (value["type"] != "json_schema") bad_field("response_format.type", "must be text, json_object or json_schema");
  const auto schema = value.find("json_schema");
  if (schema == value.end() || !schema->is_object() || !schema->contains("schema") || !(*schema)["schema"].is_object())
    bad_field("response_format.json_schema", "must be an object with a schema, which is an object");
  return schema_form("response_format.json_schema", (*schema)["schema"]);
}

// One of the ways of vLLM; name: json, regex, choice or grammar.
std::optional<Form> guided(const std::string& field, std::string_view name, const OrderedJson& value,
                           const RequestLimits& limits) {
  if (name == "json") return schema_form(field, value);
  if (name == "regex") return Form{field, GrammarKind::kRegex, text_of(field, value)};
  if (name == "choice") return choice_form(field, value, limits);
  if (name == "grammar") return Form{field, GrammarKind::kLark, text_of(field, value)};
  if (name != "json_object") bad_field(field, "is not known: there are json, json_object, regex, choice and grammar");
  if (value != true) bad_field(field, "must be true");
  return Form{field, GrammarKind::kJsonSchema, R"({"type":"object"})"};
}

std::vector<Form> asked_forms(const RequestDraft& draft) {
  std::vector<Form> forms;
  const auto add = [&](std::optional<Form> form) {
    if (form) forms.push_back(*std::move(form));
  };
  for (const auto& [field, value] : draft.forms) {
    if (field == "response_format") {
      add(response_format(*value));
    } else if (field == "structured_outputs") {
      if (!value->is_object()) bad_field(field, "must be an object");
      for (const auto& [name, item] : value->items())
        if (!item.is_null()) add(guided(format("{}.{}", field, name), name, item, draft.scope->limits));
    } else {
      add(guided(field, std::string_view(field).substr(std::string_view("guided_").size()), *value,
                 draft.scope->limits));
    }
  }
  return forms;
}

// How calls must be made, when they must or when a tool is strict about its arguments.
std::optional<Form> calls_form(const RequestDraft& draft, const ToolUse& use) {
  if (!use.may_call()) return std::nullopt;
  const CallSyntax& syntax = *draft.scope->format.calls;
  const Tokenizer& tokenizer = draft.scope->model.tokenizer;
  bool strict = false;
  for (const OrderedJson& tool : use.tools) strict |= tool["function"].value("strict", OrderedJson()) == true;
  if (!use.must_call && (!strict || !begins_with_token(syntax, tokenizer))) return std::nullopt;
  const CallGrammarOptions options{
      .only = use.only, .several = draft.parallel_calls && use.only.empty(), .with_text = !use.must_call};
  return Form{use.must_call ? "tool_choice" : "tools", GrammarKind::kLark,
              call_grammar(syntax, use.tools, tokenizer, options)};
}

}  // namespace

std::shared_ptr<const Grammar> read_grammar(const RequestDraft& draft, const ToolUse& use) {
  std::vector<Form> forms = asked_forms(draft);
  if (forms.size() > 1) bad_field(forms[1].field, format("asks for a form, and so does {}", forms[0].field));
  if (!forms.empty() && use.may_call())
    throw ApiError(
        400,
        format("{} together with tools that may be called is not supported: set tool_choice to none", forms[0].field),
        forms[0].field, "unsupported_parameter");
  if (std::optional<Form> calls = calls_form(draft, use)) forms.push_back(*std::move(calls));
  if (forms.empty()) return nullptr;
  const Form& form = forms.front();
  if (draft.request.options.ignore_stop_ids) bad_field("ignore_eos", format("does not go with {}", form.field));
  try {
    return std::make_shared<const Grammar>(draft.scope->grammars->compile(form.kind, form.source));
  } catch (const Error& error) {
    throw ApiError(400, format("{}: {}", form.field, error.message()), form.field, "invalid_value");
  }
}

}  // namespace tandem
