// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "chat_format/call_syntax.h"

#include <array>

namespace tandem {

namespace {

constexpr CallForm kStep3Forms[] = {
    {.head = "~function~<｜tool_sep｜>~<steptml:invoke name=\"@\">",
     .body = CallBody::kParameters,
     .tail = "~</steptml:invoke>~<｜tool_call_end｜>"},
};
constexpr CallSyntax kStep3 = {.name = "step3",
                               .block_begin = "<｜tool_calls_begin｜>",
                               .block_end = "<｜tool_calls_end｜>",
                               .call_begin = "<｜tool_call_begin｜>",
                               .forms = kStep3Forms};

// The usual order of keys can be streamed; any other is read as a whole.
constexpr CallForm kHermesForms[] = {
    {.head = "~{~\"name\"~:~\"@\"~,~\"arguments\"~:~^", .body = CallBody::kJson, .tail = "~}~</tool_call>"},
    {.head = "~^", .body = CallBody::kWholeJson, .tail = "~</tool_call>"},
};
constexpr CallSyntax kHermes = {
    .name = "hermes", .block_begin = {}, .block_end = {}, .call_begin = "<tool_call>", .forms = kHermesForms};

// V3 and R1 name the kind of tool and fence the arguments, V3.1 does neither.
constexpr CallForm kDeepseekForms[] = {
    {.head = "~function~<｜tool▁sep｜>~@~```json~^", .body = CallBody::kJson, .tail = "~```~<｜tool▁call▁end｜>"},
    {.head = "~@~<｜tool▁sep｜>~^", .body = CallBody::kJson, .tail = "~<｜tool▁call▁end｜>"},
};
constexpr CallSyntax kDeepseek = {.name = "deepseek_v3",
                                  .block_begin = "<｜tool▁calls▁begin｜>",
                                  .block_end = "<｜tool▁calls▁end｜>",
                                  .call_begin = "<｜tool▁call▁begin｜>",
                                  .forms = kDeepseekForms};

struct Name {
  std::string_view name;
  const CallSyntax* syntax;
};
constexpr std::array kNames = {Name{"step3", &kStep3}, Name{"hermes", &kHermes}, Name{"qwen3", &kHermes},
                               Name{"deepseek_v3", &kDeepseek}, Name{"deepseek_v31", &kDeepseek}};

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
