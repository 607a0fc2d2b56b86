// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "traffic/plot.h"

#include <gmock/gmock.h>

namespace tandem {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::size_t count_of(const std::string& text, const std::string& part) {
  std::size_t count = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

TEST(Plot, has_a_curve_for_each_latency_and_a_line_for_each_limit) {
  std::vector<LoadRecord> records;
  for (Nanoseconds i = 1; i <= 2000; ++i)
    records.push_back(
        {.due = 0, .first = i * 1'000'000, .last = i * 2'000'000, .end = i * 2'000'000, .output_tokens = 5});
  const std::string svg = plot_svg(records, {.first_token_ms = 500}, "a < b & \"c\"");
  EXPECT_EQ(count_of(svg, "<polyline"), 3U);
  EXPECT_EQ(count_of(svg, "stroke-dasharray"), 1U);
  EXPECT_THAT(svg, HasSubstr("a &lt; b &amp; &quot;c&quot;"));
  EXPECT_THAT(svg, HasSubstr(">2000<")) << "the first axis ends where the values do";
  EXPECT_TRUE(svg.ends_with("</svg>\n"));
  EXPECT_LT(svg.size(), 40'000U) << "a curve has only so many points";
}

TEST(Plot, of_nothing_is_empty_axes) {
  const std::string svg = plot_svg({}, {}, "");
  EXPECT_THAT(svg, Not(HasSubstr("polyline")));
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
}

}  // namespace
}  // namespace tandem
