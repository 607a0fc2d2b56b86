// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "plan/cost_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/json.h"

namespace tandem {
namespace {

using testing::HasSubstr;

CostTable small_table() {
  return CostTable({{find_shape("step3"), find_shape("deepseek_v3")},
                    {find_hardware("h800"), find_hardware("h20")},
                    {8192, 32768},
                    {}});
}

TEST(ThreeDigits, AreThePapers) {
  EXPECT_EQ(three_digits(2.878e8), "2.88e8");
  EXPECT_EQ(three_digits(5.5556e-17), "5.56e-17");
  EXPECT_EQ(three_digits(9.999e9), "1.00e10");
  EXPECT_EQ(three_digits(0), "0");
}

TEST(CostText, ShowsEveryTable) {
  const std::string text = cost_text(small_table());
  EXPECT_THAT(text, HasSubstr("H800          2    9.89e14    1.98e15    3.35e12       591  2.81e-19  1.66e-16\n"));
  EXPECT_THAT(text, HasSubstr("Step-3       8192     2.56e8         3.27e10      2.07e10    5.33e10        128.0\n"));
  EXPECT_THAT(text, HasSubstr("Step-3       8192 attention     .048     .040   .040 on H20\n"));
  EXPECT_THAT(text, HasSubstr("Step-3      32768 AFD       .129 with attention on H20 and FFN on H800\n"));
  EXPECT_THAT(text, HasSubstr("DSv3         8192 together      .068     .164   .068 on H800\n"));
}

TEST(CostJson, IsOneObjectALine) {
  const CostTable table = small_table();
  const std::string text = cost_json(table);
  std::size_t lines = 0;
  for (std::size_t begin = 0; begin < text.size(); ++lines) {
    const std::size_t end = text.find('\n', begin);
    ASSERT_NE(end, std::string::npos);
    const Json line = parse_json(text.substr(begin, end - begin), "line");
    EXPECT_EQ(line.size(), 9u);
    const CostEntry& entry = table.entries()[lines];
    EXPECT_EQ(line["model"].get<std::string>(), lines < 4 ? "Step-3" : "DSv3");
    EXPECT_EQ(line["hardware"].get<std::string>(), lines % 2 == 0 ? "H800" : "H20");
    EXPECT_EQ(line["context"].get<std::int64_t>(), lines / 2 % 2 == 0 ? 8192 : 32768);
    EXPECT_EQ(line["kv_bytes"].get<double>(), entry.work.kv_bytes);
    EXPECT_EQ(line["attention_flops"].get<double>(), entry.work.attention_flops);
    EXPECT_EQ(line["linear_flops"].get<double>(), entry.work.linear_flops);
    EXPECT_EQ(line["ffn_flops"].get<double>(), entry.work.ffn_flops);
    EXPECT_EQ(line["attention_usd"].get<double>(), entry.cost.attention_usd);
    EXPECT_EQ(line["ffn_usd"].get<double>(), entry.cost.ffn_usd);
    begin = end + 1;
  }
  EXPECT_EQ(lines, 8u);
}

TEST(CostCsv, QuotesWhatNeedsIt) {
  CostQuestion question = small_table().question();
  question.models.resize(1);
  question.hardware.resize(1);
  question.contexts.resize(1);
  question.models[0].name = "a, \"b\"";
  const std::string text = cost_csv(CostTable(question));
  EXPECT_THAT(text, HasSubstr("\n\"a, \"\"b\"\"\",H800,8192,255852544,"));
  EXPECT_EQ(std::ranges::count(text, '\n'), 2);
}

TEST(CostSvg, HasABarForEachHalf) {
  CostQuestion question = small_table().question();
  question.models[0].name = "a<b>&\"";
  const std::string text = cost_svg(CostTable(question));
  const auto count = [&](const std::string& what) {
    std::size_t n = 0;
    for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++n;
    return n;
  };
  EXPECT_EQ(count("<g>"), 12u);  // two panels, two models, two accelerators and the pair
  EXPECT_EQ(count("<g>"), count("</g>"));
  EXPECT_EQ(count("a<b>"), 0u);
  EXPECT_GT(count("a&lt;b&gt;&amp;&quot;"), 0u);
  EXPECT_THAT(text, HasSubstr("<title>DSv3 on H800: attention 0.054, FFN 0.014</title>"));
  EXPECT_TRUE(text.ends_with("</svg>\n"));
}

}  // namespace
}  // namespace tandem
