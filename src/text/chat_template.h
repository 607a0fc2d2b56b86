// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A model's chat template: messages and tools to the text of a prompt, by Jinja with the settings of the model hub. A
// template is code from outside: its steps, its output and its nesting are bounded, and it ends in an Error beyond.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

struct TandemTemplate;

namespace tandem {

// JSON goes in as text, because the order of keys shows in prompts.
struct Conversation {
  std::string_view messages_json;        // an array
  std::string_view tools_json = "null";  // an array or null
  bool add_generation_prompt = true;
  std::string_view variables_json = "{}";  // extra variables, an object; they win over those above and below
  std::string_view bos_token = {};
  std::string_view eos_token = {};
  std::int64_t unix_seconds = 0;  // what strftime_now tells, in UTC
};

// render may be called from many threads at once.
class ChatTemplate {
 public:
  // Throws Error{kInvalidData} for bad syntax.
  explicit ChatTemplate(std::string_view source);

  // Throws Error: bad JSON, an error that the template raised, a bound that was reached.
  std::string render(const Conversation& conversation) const;

 private:
  struct Free {
    void operator()(TandemTemplate* handle) const;
  };
  std::unique_ptr<TandemTemplate, Free> handle_;
};

}  // namespace tandem
