// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "chat_format/call_syntax.h"

#include <gtest/gtest.h>

namespace tandem {
namespace {

TEST(CallSyntax, every_name_has_a_syntax_that_holds_together) {
  ASSERT_FALSE(call_syntax_names().empty());
  for (const std::string_view name : call_syntax_names()) {
    const CallSyntax* syntax = find_call_syntax(name);
    ASSERT_NE(syntax, nullptr) << name;
    EXPECT_FALSE(syntax->call_begin.empty());
    EXPECT_FALSE(syntax->forms.empty());
    EXPECT_EQ(syntax->block_begin.empty(), syntax->block_end.empty());
  }
  EXPECT_EQ(find_call_syntax("qwen3"), find_call_syntax("hermes"));
  EXPECT_EQ(find_call_syntax("nobody's"), nullptr);
}

}  // namespace
}  // namespace tandem
