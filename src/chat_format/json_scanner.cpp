// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "chat_format/json_scanner.h"

namespace tandem {

std::size_t JsonScanner::push(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size() && !done()) {
    const char c = text[at++];
    begun_ = true;
    if (in_string_) {
      if (!escaped_ && c == '"') in_string_ = false;
      escaped_ = !escaped_ && c == '\\';
    } else if (c == '"') {
      in_string_ = true;
    } else if (c == '{' || c == '[') {
      ++depth_;
    } else if (c == '}' || c == ']') {
      --depth_;
    }
  }
  return at;
}

}  // namespace tandem
