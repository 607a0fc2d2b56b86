// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "chat_format/call_grammar.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "base/format.h"
#include "chat_format/tool_schemas.h"
#include "text/grammar.h"

namespace tandem {

namespace {

// Any text up to the end of a parameter; it may have angle brackets.
constexpr std::string_view kRules =
    "text_value[lazy]: /(.|\\n)*/ \"</steptml:parameter>\"\n"
    "any_parameter: \"<steptml:parameter name=\\\"\" /[^\"<>\\x00-\\x1f]{1,64}/ \"\\\">\" text_value\n";

std::optional<std::int32_t> token_of(std::string_view mark, const Tokenizer& tokenizer) {
  const std::optional<std::int32_t> id = tokenizer.find_token(mark);
  return id && tokenizer.is_control(*id) ? id : std::nullopt;
}

// A written text as a sequence of Lark: marks that are tokens as tokens, the rest as text.
std::string sequence_of(std::string_view text, const CallSyntax& syntax, const Tokenizer& tokenizer) {
  std::string out, plain;
  const auto flush = [&] {
    if (!plain.empty()) out += ' ' + lark_text(plain);
    plain.clear();
  };
  while (!text.empty()) {
    const auto mark = std::ranges::find_if(
        syntax.marks, [&](std::string_view m) { return text.starts_with(m) && token_of(m, tokenizer); });
    if (mark == syntax.marks.end()) {
      plain += text.front();
      text.remove_prefix(1);
      continue;
    }
    flush();
    out += ' ' + lark_token(*token_of(*mark, tokenizer));
    text.remove_prefix(mark->size());
  }
  flush();
  return out;
}

OrderedJson schema_of(const OrderedJson& function) {
  const auto found = function.find("parameters");
  OrderedJson schema = found == function.end() || found->is_null() ? OrderedJson::object() : *found;
  if (!schema.contains("type")) schema["type"] = "object";
  return schema;
}

// The value of one parameter between its tags, with the tag that ends it.
std::string value_of(const OrderedJson& tool_schema, const OrderedJson& schema, unsigned types) {
  const std::string end = ' ' + lark_text(kParameterEnd);
  if (const auto values = schema.find("enum"); types == kTypeString && values != schema.end() && !values->empty()) {
    std::string choice;
    for (const OrderedJson& value : *values)
      choice += (choice.empty() ? "" : " | ") + lark_text(value.get_ref<const std::string&>());
    return format("({}){}", choice, end);
  }
  if ((types & kTypeString) != 0) return "text_value";
  OrderedJson whole = schema;
  for (const char* definitions : {"$defs", "definitions"})
    if (tool_schema.contains(definitions) && !whole.contains(definitions))
      whole[definitions] = tool_schema[definitions];
  return "%json " + schema_source(std::move(whole)) + end;
}

// Rules for the parameters of tool i, one for each value, and the sequence of them all.
std::string parameters(const OrderedJson& function, const OrderedJson& schema, std::size_t i, std::string& rules) {
  const auto properties = schema.find("properties");
  if (properties == schema.end() || !properties->is_object() || properties->empty()) return " any_parameter*";
  const ToolSchemas schemas(OrderedJson::array({{{"function", {{"name", function["name"]}, {"parameters", schema}}}}}));
  const OrderedJson required = schema.value("required", OrderedJson::array());
  std::string sequence;
  std::size_t count = 0;
  for (const auto& [name, property] : properties->items()) {
    const std::string rule = format("value_{}_{}", i, count++);
    const unsigned types = schemas.types(function["name"].get<std::string>(), name);
    rules += format("{}: {}\n", rule, value_of(schema, property, types));
    const std::string one = format("{} {}", lark_text(format("<steptml:parameter name=\"{}\">", name)), rule);
    const bool must =
        required.is_array() && std::ranges::any_of(required, [&](const OrderedJson& item) { return item == name; });
    sequence += must ? ' ' + one : format(" ({})?", one);
  }
  return sequence;
}

std::string arguments(const CallSyntax& syntax, const OrderedJson& function, bool by_schema, std::size_t i,
                      std::string& rules) {
  const OrderedJson schema = by_schema ? schema_of(function) : OrderedJson{{"type", "object"}};
  if (syntax.forms.front().body == CallBody::kParameters) return parameters(function, schema, i, rules);
  rules += format("arguments_{}: %json {}\n", i, schema_source(schema));
  return format(" arguments_{}", i);
}

// Text and calls in any order. Text before a call ends with the call's mark, wherever that is; other text does not have
// it. mark empty: calls begin with a token, and text is what has none.
std::string start_in_text(std::string_view mark, bool several) {
  if (mark.empty()) return "start: TEXT? (calls TEXT?)?\nTEXT: /(.|\\n)+/\n";
  const std::string spelled = lark_text(mark);
  return format("start: {} PLAIN?\nmarked[lazy]: /(.|\\n)*/ {}\n", several ? "(marked call)*" : "(marked call)?",
                spelled) +
         format("PLAIN: /(.|\\n)+/ & ~(/(.|\\n)*/ {} /(.|\\n)*/)\n", spelled);
}

}  // namespace

bool may_stand_in_text(const CallSyntax& syntax, const Tokenizer& tokenizer) {
  return syntax.block_begin.empty() || token_of(syntax.block_begin, tokenizer).has_value();
}

std::string call_grammar(const CallSyntax& syntax, const OrderedJson& tools, const Tokenizer& tokenizer,
                         const CallGrammarOptions& options) {
  const bool in_text = options.with_text && options.schema.empty();
  const bool by_token = !syntax.block_begin.empty() || token_of(syntax.call_begin, tokenizer).has_value();
  const std::string_view mark = in_text && !by_token ? syntax.call_begin : std::string_view();
  std::string rules, names;
  const std::string_view call = syntax.written_call;
  const std::size_t name_at = call.find('@'), arguments_at = call.find('^');
  for (std::size_t i = 0; i < tools.size(); ++i) {
    const OrderedJson& function = tools[i]["function"];
    const auto name = function["name"].get<std::string>();
    if (!options.only.empty() && name != options.only) continue;
    const bool by_schema = !options.with_text || function.value("strict", OrderedJson()) == true;
    const std::string before = std::string(call.substr(mark.size(), name_at - mark.size())) + name +
                               std::string(call.substr(name_at + 1, arguments_at - name_at - 1));
    const std::string value = arguments(syntax, function, by_schema, i, rules);
    rules += format("call_{}:{}{}{}\n", i, sequence_of(before, syntax, tokenizer), value,
                    sequence_of(call.substr(arguments_at + 1), syntax, tokenizer));
    names += (names.empty() ? "" : " | ") + format("call_{}", i);
  }
  const std::string more =
      options.several ? format(" ({} call)*", sequence_of(syntax.written_between, syntax, tokenizer)) : "";
  std::string calls = format("call: {}\n", names);
  if (mark.empty())  // otherwise each call stands in the text by itself
    calls += format("calls:{} call{}{}\n", sequence_of(syntax.written_begin, syntax, tokenizer), more,
                    sequence_of(syntax.written_end, syntax, tokenizer));
  std::string start = "start: calls\n";
  if (in_text)
    start = start_in_text(mark, options.several);
  else if (options.with_text)
    start = format("start: calls | answer\nanswer: %json {}\n", options.schema);
  const bool tagged = syntax.forms.front().body == CallBody::kParameters;
  return start + calls + rules + (tagged ? std::string(kRules) : std::string());
}

}  // namespace tandem
