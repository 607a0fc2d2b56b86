// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "serve/openai/structured.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/format.h"
#include "chat_format/call_grammar.h"
#include "serve/openai/fields.h"
#include "serve/openai/response.h"

namespace tandem {

namespace {

bool is_strict(const OrderedJson& tool) {
  return tool["function"].value("strict", OrderedJson()) == true;
}

struct Form {
  std::string field;  // that asks for it
  GrammarKind kind = GrammarKind::kJsonSchema;
  std::string source;
};

std::string text_of(const std::string& field, const OrderedJson& value) {
  if (!value.is_string() || value.get_ref<const std::string&>().empty()) bad_field(field, "must be text");
  return value.get<std::string>();
}

[[noreturn]] void cannot_enforce(const std::string& field, const Error& error) {
  throw ApiError(400, format("{}: {}", field, error.message()), field, "invalid_value");
}

// A schema may be written as a text as well: the limits of the request's JSON hold for it, too.
Form schema_form(const std::string& field, const OrderedJson& value, const RequestLimits& limits) {
  OrderedJson schema = value;
  if (value.is_string()) {
    try {
      schema = read_object(value.get_ref<const std::string&>(), limits);
    } catch (const Error& error) {
      bad_field(field, format("is no JSON schema: {}", error.message()));
    }
  }
  if (!schema.is_object()) bad_field(field, "must be a JSON schema, an object");
  try {
    return {field, GrammarKind::kJsonSchema, schema_source(std::move(schema))};
  } catch (const Error& error) {
    cannot_enforce(field, error);
  }
}

Form choice_form(const std::string& field, const OrderedJson& value, const RequestLimits& limits) {
  if (!value.is_array() || value.empty()) bad_field(field, "must be an array of at least one text");
  if (static_cast<std::int64_t>(value.size()) > limits.json_keys_max)
    bad_field(field, format("has {} texts, limit is {} (--json-keys-max)", value.size(), limits.json_keys_max));
  std::vector<std::string> texts;
  for (const OrderedJson& text : value) texts.push_back(text_of(field, text));
  return {field, GrammarKind::kLark, lark_choice(texts)};
}

std::optional<Form> response_format(const OrderedJson& value, const RequestLimits& limits) {
  if (!value.is_object() || !value.contains("type") || !value["type"].is_string())
    bad_field("response_format", "must be an object with a type");
  if (value["type"] == "text") return std::nullopt;
  if (value["type"] == "json_object") return schema_form("response_format", {{"type", "object"}}, limits);
  if (value["type"] != "json_schema") bad_field("response_format.type", "must be text, json_object or json_schema");
  const auto schema = value.find("json_schema");
  if (schema == value.end() || !schema->is_object() || !schema->contains("schema") || !(*schema)["schema"].is_object())
    bad_field("response_format.json_schema", "must be an object with a schema, which is an object");
  return schema_form("response_format.json_schema", (*schema)["schema"], limits);
}

// One of the ways of vLLM; name: json, regex, choice or grammar.
std::optional<Form> guided(const std::string& field, std::string_view name, const OrderedJson& value,
                           const RequestLimits& limits) {
  if (name == "json") return schema_form(field, value, limits);
  if (name == "regex") return Form{field, GrammarKind::kRegex, text_of(field, value)};
  if (name == "choice") return choice_form(field, value, limits);
  if (name == "grammar") return Form{field, GrammarKind::kLark, text_of(field, value)};
  if (name != "json_object") bad_field(field, "is not known: there are json, json_object, regex, choice and grammar");
  if (value != true) bad_field(field, "must be true");
  return schema_form(field, {{"type", "object"}}, limits);
}

std::vector<Form> asked_forms(const RequestDraft& draft) {
  std::vector<Form> forms;
  const auto add = [&](std::optional<Form> form) {
    if (form) forms.push_back(*std::move(form));
  };
  for (const auto& [field, value] : draft.forms) {
    if (field == "response_format") {
      add(response_format(*value, draft.scope->limits));
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

// How calls must be made, when they must or when a tool is strict about its arguments; schema: of an answer that comes
// instead of calls, if it has to be JSON.
std::optional<Form> calls_form(const RequestDraft& draft, const ToolUse& use, std::string_view schema) {
  const CallSyntax& syntax = *draft.scope->format.calls;
  const Tokenizer& tokenizer = draft.scope->model.tokenizer;
  const bool strict = std::ranges::any_of(use.tools, is_strict);
  if (!use.must_call && schema.empty() && !strict) return std::nullopt;
  if (!use.must_call && schema.empty() && !may_stand_in_text(syntax, tokenizer))
    throw ApiError(
        400,
        "strict tools that may be called are not supported with this model, whose calls stand in blocks that "
        "begin with no token of their own: set tool_choice to required, or strict to false",
        "tools", "unsupported_parameter");
  const CallGrammarOptions options{.only = use.only,
                                   .several = draft.parallel_calls && use.only.empty(),
                                   .with_text = !use.must_call,
                                   .schema = schema};
  const std::string field = use.must_call ? "tool_choice" : "tools";
  try {
    return Form{field, GrammarKind::kLark, call_grammar(syntax, use.tools, tokenizer, options)};
  } catch (const Error& error) {
    cannot_enforce(field, error);
  }
}

// What the whole answer has to be.
std::optional<Form> wanted_form(const RequestDraft& draft, const ToolUse& use) {
  std::vector<Form> forms = asked_forms(draft);
  if (forms.size() > 1) bad_field(forms[1].field, format("asks for a form, and so does {}", forms[0].field));
  if (!use.may_call()) return forms.empty() ? std::nullopt : std::optional(std::move(forms.front()));
  if (forms.empty()) return calls_form(draft, use, {});
  if (forms.front().kind != GrammarKind::kJsonSchema)
    throw ApiError(
        400,
        format("{} together with tools that may be called is not supported: set tool_choice to none", forms[0].field),
        forms[0].field, "unsupported_parameter");
  std::optional<Form> form = calls_form(draft, use, forms.front().source);
  if (!use.must_call) form->field = forms.front().field;  // its schema is what may be wrong
  return form;
}

}  // namespace

std::shared_ptr<const Grammar> read_grammar(const RequestDraft& draft, const ToolUse& use) {
  const std::optional<Form> form = wanted_form(draft, use);
  if (!form) return nullptr;
  if (draft.request.options.ignore_stop_ids) bad_field("ignore_eos", format("does not go with {}", form->field));
  try {
    return std::make_shared<const Grammar>(
        draft.scope->grammars.compile(form->kind, form->source, draft.scope->limits.grammar));
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kUnavailable) throw ApiError(503, error.message());
    cannot_enforce(form->field, error);
  }
}

}  // namespace tandem
