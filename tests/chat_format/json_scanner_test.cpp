// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "chat_format/json_scanner.h"

#include <gtest/gtest.h>

namespace tandem {
namespace {

std::size_t end_of(std::string_view text, std::size_t part) {
  JsonScanner scanner;
  std::size_t end = 0;
  while (!text.empty() && !scanner.done()) {
    end += scanner.push(text.substr(0, part));
    text.remove_prefix(std::min(part, text.size()));
  }
  return scanner.done() ? end : 0;
}

TEST(JsonScanner, finds_the_end_by_brackets_and_strings) {
  const std::string value = R"({"a": "} \\\" ]", "b": [{}, "{"]})";
  for (const std::size_t part : {std::size_t{1}, std::size_t{3}, std::size_t{100}}) {
    EXPECT_EQ(end_of(value + "} rest", part), value.size());
    EXPECT_EQ(end_of("{}", part), 2);
    EXPECT_EQ(end_of(value.substr(0, value.size() - 1), part), 0);
  }
}

}  // namespace
}  // namespace tandem
