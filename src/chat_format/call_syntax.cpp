// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "chat_format/call_syntax.h"

#include <array>

namespace tandem {

namespace {

constexpr std::string_view kStep3Marks[] = {"<｜tool_calls_begin｜>", "<｜tool_calls_end｜>", "<｜tool_call_begin｜>",
                                            "<｜tool_call_end｜>", "<｜tool_sep｜>"};
constexpr CallForm kStep3Forms[] = {
    {.head = "~function~<｜tool_sep｜>~<steptml:invoke name=\"@\">",
     .body = CallBody::kParameters,
     .tail = "~</steptml:invoke>~<｜tool_call_end｜>"},
};
constexpr CallSyntax kStep3 = {.name = "step3",
                               .block_begin = "<｜tool_calls_begin｜>",
                               .block_end = "<｜tool_calls_end｜>",
                               .call_begin = "<｜tool_call_begin｜>",
                               .forms = kStep3Forms,
                               .written_begin = "<｜tool_calls_begin｜>\n",
                               .written_call =
                                   "<｜tool_call_begin｜>\nfunction<｜tool_sep｜><steptml:invoke name=\"@\">^"
                                   "</steptml:invoke><｜tool_call_end｜>\n",
                               .written_between = {},
                               .written_end = "<｜tool_calls_end｜>",
                               .marks = kStep3Marks};

// The usual order of keys can be streamed; any other is read as a whole.
constexpr std::string_view kHermesMarks[] = {"<tool_call>", "</tool_call>"};
constexpr CallForm kHermesForms[] = {
    {.head = "~{~\"name\"~:~\"@\"~,~\"arguments\"~:~^", .body = CallBody::kJson, .tail = "~}~</tool_call>"},
    {.head = "~^", .body = CallBody::kWholeJson, .tail = "~</tool_call>"},
};
constexpr CallSyntax kHermes = {.name = "hermes",
                                .block_begin = {},
                                .block_end = {},
                                .call_begin = "<tool_call>",
                                .forms = kHermesForms,
                                .written_begin = {},
                                .written_call = "<tool_call>\n{\"name\": \"@\", \"arguments\": ^}\n</tool_call>",
                                .written_between = "\n",
                                .written_end = {},
                                .marks = kHermesMarks};

// V3 and R1 name the kind of tool and fence the arguments, V3.1 does neither.
constexpr std::string_view kDeepseekMarks[] = {"<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>",
                                               "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"};
constexpr CallForm kDeepseekForms[] = {
    {.head = "~function~<｜tool▁sep｜>~@~```json~^", .body = CallBody::kJson, .tail = "~```~<｜tool▁call▁end｜>"},
    {.head = "~@~<｜tool▁sep｜>~^", .body = CallBody::kJson, .tail = "~<｜tool▁call▁end｜>"},
};
constexpr CallSyntax kDeepseek = {
    .name = "deepseek_v3",
    .block_begin = "<｜tool▁calls▁begin｜>",
    .block_end = "<｜tool▁calls▁end｜>",
    .call_begin = "<｜tool▁call▁begin｜>",
    .forms = kDeepseekForms,
    .written_begin = "<｜tool▁calls▁begin｜>",
    .written_call = "<｜tool▁call▁begin｜>function<｜tool▁sep｜>@\n```json\n^\n```<｜tool▁call▁end｜>",
    .written_between = "\n",
    .written_end = "<｜tool▁calls▁end｜>",
    .marks = kDeepseekMarks};
constexpr CallSyntax kDeepseek31 = {.name = "deepseek_v31",
                                    .block_begin = "<｜tool▁calls▁begin｜>",
                                    .block_end = "<｜tool▁calls▁end｜>",
                                    .call_begin = "<｜tool▁call▁begin｜>",
                                    .forms = kDeepseekForms,
                                    .written_begin = "<｜tool▁calls▁begin｜>",
                                    .written_call = "<｜tool▁call▁begin｜>@<｜tool▁sep｜>^<｜tool▁call▁end｜>",
                                    .written_between = {},
                                    .written_end = "<｜tool▁calls▁end｜>",
                                    .marks = kDeepseekMarks};

struct Name {
  std::string_view name;
  const CallSyntax* syntax;
};
constexpr std::array kNames = {Name{"step3", &kStep3}, Name{"hermes", &kHermes}, Name{"qwen3", &kHermes},
                               Name{"deepseek_v3", &kDeepseek}, Name{"deepseek_v31", &kDeepseek31}};

}  // namespace

const CallSyntax* find_call_syntax(std::string_view name) {
  for (const Name& known : kNames)
    if (known.name == name) return known.syntax;
  return nullptr;
}

std::span<const std::string_view> call_syntax_names() {
  static constexpr auto kAll = [] {
    std::array<std::string_view, kNames.size()> names;
    for (std::size_t i = 0; i < names.size(); ++i) names[i] = kNames[i].name;
    return names;
  }();
  return kAll;
}

}  // namespace tandem
