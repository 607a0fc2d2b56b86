// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "base/svg_text.h"

#include <gtest/gtest.h>

namespace tandem {
namespace {

TEST(SvgText, KeepsTextAndNamesWhatXmlWouldRead) {
  EXPECT_EQ(svg_text("a <b> & \"c\""), "a &lt;b&gt; &amp; &quot;c&quot;");
  EXPECT_EQ(svg_text("tokens/s, µs 東"), "tokens/s, µs 東");
}

TEST(SvgText, LeavesOutControlCharacters) {
  EXPECT_EQ(svg_text(std::string_view("a\n\x01\0b", 5)), "ab");
}

}  // namespace
}  // namespace tandem
