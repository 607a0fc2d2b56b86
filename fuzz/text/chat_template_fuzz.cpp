// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Any bytes as a chat template, rendered over a short conversation: a prompt or an Error, soon and in bounded memory.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"
#include "text/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const tandem::ChatTemplate chat({reinterpret_cast<const char*>(data), size});
    const std::string prompt = chat.render(
        {.messages_json = R"([{"role": "user", "content": "hi <b>"}, {"role": "tool", "content": ["x", 1]}])",
         .tools_json = R"([{"type": "function", "function": {"name": "f"}}])",
         .bos_token = "<s>"});
    static_cast<void>(prompt);
  } catch (const tandem::Error&) {
  }
  return 0;
}
