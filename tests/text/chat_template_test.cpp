// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "text/chat_template.h"

#include <gtest/gtest.h>

#include <map>

#include "tests/text/text_goldens.h"

namespace tandem {
namespace {

TEST(ChatTemplate, RendersAsRecorded) {
  const OrderedJson goldens = golden_json("text/chat_templates.json");
  int rendered = 0, raised = 0;
  for (const auto& [name, entry] : goldens["templates"].items()) {
    const ChatTemplate chat(entry["source"].get<std::string>());
    const Tokenizer tokenizer = golden_tokenizer(entry["tokenizer"]);
    for (const OrderedJson& test : goldens["cases"]) {
      if (test["template"] != name) continue;
      const std::string messages = test["messages"].dump(), tools = test["tools"].dump(),
                        variables = test["variables"].dump();
      const Conversation conversation = {.messages_json = messages,
                                         .tools_json = tools,
                                         .add_generation_prompt = test["add_generation_prompt"],
                                         .variables_json = variables,
                                         .bos_token = tokenizer.bos_token(),
                                         .eos_token = tokenizer.eos_token()};
      if (test.contains("error")) {
        try {
          chat.render(conversation);
          ADD_FAILURE() << test["case"] << " did not raise";
        } catch (const Error& error) {
          EXPECT_NE(error.message().find(test["error"].get<std::string>()), std::string::npos) << error.message();
        }
        ++raised;
        continue;
      }
      const std::string prompt = chat.render(conversation);
      EXPECT_EQ(prompt, test["expected"].get<std::string>()) << name << " " << test["case"];
      EXPECT_EQ(tokenizer.encode(prompt, {.parse_special = true}),
                test["expected_ids"].get<std::vector<std::int32_t>>());
      ++rendered;
    }
  }
  EXPECT_EQ(rendered, 45);
  EXPECT_EQ(raised, 1);
}

// Step-3's macro puts one space before and one after every content. The prompt is a published one.
TEST(ChatTemplate, KeepsTheSpacesOfStep3) {
  const OrderedJson entry = golden_json("text/chat_templates.json")["templates"]["step3"];
  const OrderedJson messages = {
      {{"role", "system"}, {"content", "You are a helpful assistant."}},
      {{"role", "user"}, {"content", {{{"type", "image"}}, {{"type", "text"}, {"text", "What?"}}}}}};
  const std::string text = messages.dump();
  EXPECT_EQ(ChatTemplate(entry["source"].get<std::string>())
                .render({.messages_json = text, .add_generation_prompt = true, .bos_token = "<｜begin▁of▁sentence｜>"}),
            "<｜begin▁of▁sentence｜> You are a helpful assistant. <|BOT|>user\n <im_patch>What? <|EOT|>"
            "<|BOT|>assistant\n<think>\n");
}

TEST(ChatTemplate, RendersARealModelsPrompts) {
  const OrderedJson golden = golden_json("smollm2/greedy.json");
  const ChatTemplate chat(golden["chat_template"].get<std::string>());
  ASSERT_EQ(golden["cases"].size(), 12u);
  for (const OrderedJson& test : golden["cases"]) {
    const std::string messages = test["messages"].dump();
    EXPECT_EQ(chat.render({.messages_json = messages}), test["prompt"].get<std::string>());
  }
}

std::string render(std::string_view source) {
  return ChatTemplate(source).render({.messages_json = "[]", .unix_seconds = 1709210096});
}

TEST(ChatTemplate, FollowsTheHubsSettings) {
  EXPECT_EQ(render("{% if true %}\n  a\n  {% endif %}\nb"), "  a\nb");  // trim_blocks, lstrip_blocks
  EXPECT_EQ(render("{{ {'b': [1, 2.5, none], 'a': '<\u00e9>'} | tojson }}"), R"({"b": [1, 2.5, null], "a": "<é>"})");
  EXPECT_EQ(render("{{ {'a': [1], 'b': []} | tojson(indent=2) }}"), "{\n  \"a\": [\n    1\n  ],\n  \"b\": []\n}");
  EXPECT_EQ(render("{{ strftime_now('%d %b %Y %H:%M %A %j') }}"), "29 Feb 2024 12:34 Thursday 060");
  EXPECT_EQ(render("{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}{% endif "
                   "%}{{ i }}{% endfor %}"),
            "013");
  EXPECT_EQ(render("{{ ' a,b '.strip().split(',') | join('-') }}{{ 'x'.replace('x', 'yy') }}"), "a-byy");
}

// Templates from outside end in an Error, whatever they try.
TEST(ChatTemplate, IsBounded) {
  const std::map<std::string, std::string> hostile = {
      {"loops", "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}"},
      {"recursion", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"},
      {"output", "{% for a in range(90000) %}" + std::string(1000, 'x') + "{% endfor %}"},
      {"repeat", "{{ 'x' * 1000000000 }}"},
      {"join", "{{ range(100000) | join('x' * 100000) }}"},
      {"replace", "{{ ('x' * 100000).replace('x', 'y' * 100000) }}"},
      {"concatenation",
       "{% set ns = namespace(x='x') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}"},
      {"addition", "{% set ns = namespace(x='x') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}"},
      {"lists", "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}"},
      {"repeated list", "{{ ([1] * 1000000000) | list | length }}"},
      {"characters", "{{ ('x' * 90000000) | list | length }}"},
      {"many repeats",
       "{% set ns = namespace(x=[]) %}{% for i in range(1000) %}"
       "{% set ns.x = ns.x + ['x' * (10000000 + i)] %}{% endfor %}"},
      {"many constants",
       [] {
         std::string source;
         for (int i = 0; i < 1000; ++i) source += "{% set a = 'x' * 99999999 %}";
         return source;
       }()},
      {"gathered text",
       "{% set ns = namespace(x='x') %}{% for i in range(60) %}"
       "{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}{% endfor %}"},
      {"gathered raw text",
       "{% set y %}{% for i in range(90000) %}" + std::string(200'000, 'r') + "{% endfor %}{% endset %}"},
      {"raw text of a macro",
       "{% macro m() %}" + std::string(200'000, 'r') +
           "{% endmacro %}"
           "{% set ns = namespace(x=[]) %}{% for i in range(50000) %}{% set ns.x = [ns.x, m()] %}{% endfor %}"},
      {"printed structure",
       "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}"
       "{% set y %}{{ ns.x }}{% endset %}"},
      {"split",
       "{% set ns = namespace(x=[]) %}{% for i in range(100) %}"
       "{% set ns.x = [ns.x, (',' * 10000000).split(',')] %}{% endfor %}"},
      {"syntax", "{% if %}"},
      {"parentheses", "{{ " + std::string(100000, '(') + " }}"},
      {"source size", std::string(1 << 20, 'x')},
      {"date", "{{ strftime_now('%Q') }}"},
      {"nested",
       "{% set ns = namespace(a=[]) %}{% for i in range(99000) %}{% set ns.a = [ns.a] %}{% endfor %}{{ ns.a }}{{ "
       "raise_exception('end') }}"},
  };
  for (const auto& [name, source] : hostile) EXPECT_THROW(render(source), Error) << name;
}

// What counts on the way changes nothing of what comes out.
TEST(ChatTemplate, OperatorsAreWhatTheyAre) {
  EXPECT_EQ(render("{{ 'a' ~ 1 ~ none ~ [2] }} {{ 'a' + 'b' }} {{ 1 + 2 }} {{ [1] + [2, 3] }} {{ 1.5 + 1 }}"),
            "a1None[2] ab 3 [1, 2, 3] 2.5");
  EXPECT_EQ(render("{{ 'ab' * 2 }} {{ 2 * 'ab' }} {{ 3 * 4 }} {{ [1] * 3 }} {{ 'abc' | list }} {{ 2 * 1.5 }}"),
            "abab abab 12 [1, 1, 1] ['a', 'b', 'c'] 3.0");
  EXPECT_EQ(render("{{ true }} {{ none }} {{ missing }}{{ {'a': [1, 'b']} }} {{ -1.0 }}"),
            render("{{ true }} ") + render("{{ none }} {{ missing }}") + render("{{ {'a': [1, 'b']} }} {{ -1.0 }}"));
  const std::string raw(300, 'r');
  EXPECT_EQ(
      render("{% macro m(x) %}" + raw + "{{ x }}{% endmacro %}{% for i in range(2) %}{{ m(i) }}{% endfor %}" + raw),
      raw + "0" + raw + "1" + raw);
  EXPECT_EQ(render("{% set y %}" + raw + "{% endset %}{{ y | length }}{% block b %}" + raw + "{% endblock %}"),
            "300" + raw);
  EXPECT_THROW(render("{{ 'a' + 1 }}"), Error);
}

TEST(ChatTemplate, RefusesWhatIsNoTemplate) {
  for (const char* source :
       {"{{ 'no end }}", "{{ `tick` }}", "{{ 1 ? 2 }}", "{{ 99999999999999999999999999999999999999999 }}",
        "{% raw %}no end", "{# no end", "{{ 'bad \\u12' }}", "{% if %}", "{{ ) }}"}) {
    EXPECT_THROW(ChatTemplate{source}, Error) << source;
  }
}

TEST(ChatTemplate, RefusesBadInputs) {
  const ChatTemplate chat("{{ messages }}");
  EXPECT_THROW(chat.render({.messages_json = "[1] , \"tools\": []"}), Error);
  EXPECT_THROW(chat.render({.messages_json = std::string(100000, '[')}), Error);
  EXPECT_THROW(chat.render({.messages_json = "[]", .variables_json = "[]"}), Error);
}

}  // namespace
}  // namespace tandem
