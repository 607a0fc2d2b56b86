// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "engine/worker/layout.h"

#include <gtest/gtest.h>

#include "base/format.h"
#include "tests/base/error_of.h"

namespace tandem {
namespace {

TEST(Layout, ReadsWhatItWrites) {
  for (const char* text : {"local", "1A1F", "2A1F", "3A4F", "64A64F", "1A1x2F", "3A2x4F", "64A8x8F"})
    EXPECT_EQ(to_string(parse_layout(text)), text);
  EXPECT_EQ(parse_layout("3a2f"), (Layout{3, 2}));
  EXPECT_EQ(parse_layout("1a2X2f"), (Layout{1, 4, 2}));
  EXPECT_EQ(parse_layout("1A2x1F"), (Layout{1, 2}));
  EXPECT_EQ(parse_layout("2A3x4F").ffn_split(), (FfnSplit{3, 4}));
  EXPECT_EQ(parse_layout("local").ffn_split(), FfnSplit{});
  EXPECT_TRUE(parse_layout("local").local());
  EXPECT_FALSE(parse_layout("1A1F").local());
}

TEST(Layout, RanksCountAttentionWorkersFirst) {
  const Layout layout = parse_layout("2A3F");
  EXPECT_EQ(layout.workers(), 5);
  EXPECT_EQ(layout.attention_rank(1), 1);
  EXPECT_EQ(layout.ffn_rank(0), 2);
  EXPECT_EQ(layout.ffn_rank(2), 4);
  EXPECT_EQ(Layout{}.workers(), 1);
}

TEST(Layout, RefusesEverythingElseAndSaysWhatItWants) {
  for (const char* text : {"",      "Local",  "1A",     "A1F",     "1F1A",           "0A1F",     "1A0F",  "-1A1F",
                           "65A1F", "1A65F",  "1A1F ",  "1A1Fx",   "99999999999A1F", "1A 1F",    "1Ax2F", "1A2xF",
                           "1A2x2", "1A2x0F", "1A1x3F", "1A1x16F", "1A16x8F",        "1A2x2x2F", "1x2A1F"}) {
    const Error error = error_of([&] { parse_layout(text); });
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(error.message().find(format("\"{}\"", text)), std::string::npos) << error.message();
    EXPECT_NE(error.message().find("64"), std::string::npos) << error.message();
  }
}

TEST(Shares, attention_comes_first_and_every_expert_and_slice_has_one_owner) {
  const std::vector<ModelShare> local = shares({}, 5);
  ASSERT_EQ(local.size(), 1u);
  EXPECT_TRUE(local[0].attention && local[0].ffn);
  EXPECT_EQ(local[0].experts.expert_end, 5);

  const std::vector<ModelShare> apart = shares(parse_layout("4A3F"), 5);
  ASSERT_EQ(apart.size(), 4u) << "attention workers share one";
  EXPECT_TRUE(apart[0].attention && !apart[0].ffn);
  std::int32_t experts = 0, slices = 0;
  for (std::size_t f = 1; f < apart.size(); ++f) {
    EXPECT_TRUE(!apart[f].attention && apart[f].ffn);
    EXPECT_EQ(apart[f].experts.expert_begin, experts);
    experts = apart[f].experts.expert_end;
    slices += apart[f].experts.slice_count;
  }
  EXPECT_EQ(experts, 5);
  EXPECT_EQ(slices, 8);

  const std::vector<ModelShare> by_width = shares(parse_layout("1A2x2F"), 5);
  ASSERT_EQ(by_width.size(), 5u);
  EXPECT_EQ(by_width[3].experts, ffn_share(2, FfnSplit{2, 2}, 5));
}

}  // namespace
}  // namespace tandem
