// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "slice/slice_shape.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <numeric>

#include "base/error.h"

namespace tandem {
namespace {

TEST(SliceModel, FiveLayersOfStep3AreDense) {
  EXPECT_EQ(SliceModel{}.dense_layers(), 5);
  EXPECT_EQ(SliceModel{.layers = 6}.dense_layers(), 5);
  EXPECT_TRUE(SliceModel{}.is_dense(3));
  EXPECT_FALSE(SliceModel{}.is_dense(4));
  EXPECT_FALSE(SliceModel{}.is_dense(59));
  EXPECT_TRUE(SliceModel{}.is_dense(60));
}

TEST(SliceDeployment, IsServersOfEachSide) {
  const SliceDeployment d = SliceDeployment::parse("3A2F");
  EXPECT_EQ(d.attention_gpus(), 24);
  EXPECT_EQ(d.ffn_gpus(), 16);
  EXPECT_EQ(d.gpus(), 40);
  EXPECT_EQ(d.to_string(), "3A2F");
}

TEST(SliceDeployment, OrHasNoSides) {
  const SliceDeployment d = SliceDeployment::parse("ep24");
  EXPECT_FALSE(d.disaggregated());
  EXPECT_EQ(d.gpus(), 24);
  EXPECT_EQ(d.attention_gpus(), 24);
  EXPECT_EQ(d.ffn_gpus(), 24);
  EXPECT_EQ(d.to_string(), "ep24");
}

// The paper's form of 2A2F: 24 experts and an eighth of their width a GPU, all rows of the server on each.
TEST(SliceLoad, OfExpertsWhoseWidthIsCut) {
  SliceDeployment d = SliceDeployment::parse("2A2F");
  EXPECT_EQ(d.experts_text(), "ep16");
  d.width_is_cut = true;
  EXPECT_EQ(d.experts_text(), "ep2tp8");
  const SliceLoad load = load_of(d, 128);
  EXPECT_EQ(load.experts, 24);
  EXPECT_EQ(load.server_experts, 24);
  EXPECT_EQ(load.width_parts, 8);
  EXPECT_EQ(load.expert_rows_mean, 128);
  EXPECT_EQ(load.rail_blocks, 16);
  EXPECT_EQ(load.own_blocks, 2);
  EXPECT_EQ(load.shared_rows, 64);
  EXPECT_EQ(load.arrived_rows, 0);  // all that its tokens want of the server is here
  EXPECT_EQ(load.exchanged_rows, 256 * 7);
  EXPECT_EQ(load.exchange_out_bytes, 1792 * (7168 + 224 + 24));
  EXPECT_EQ(load.exchange_back_bytes, 1792 * 7168 * 2);
}

// As much work as with whole experts: 24 experts of an eighth for 128 rows are three whole ones.
TEST(RoutingTable, OfACutWidthIsThatOfTheBusiestServer) {
  SliceDeployment d = SliceDeployment::parse("3A2F");
  d.width_is_cut = true;
  const RoutingTable table = routing_table(d, 3000, .5, 7);
  std::array<std::int32_t, 2> rows{};
  for (const std::int32_t id : table.ids) ++rows[static_cast<std::size_t>(id / 24)];
  EXPECT_EQ(table.first, rows[0] >= rows[1] ? 0 : 24);
}

// 16 GPUs with three experts each: their tokens are as many as 2A2F's, dense layers and shared expert are everybody's
// own, and of three rows a token one in sixteen stays.
TEST(SliceLoad, OfExpertsBesideAttention) {
  const SliceLoad load = load_of(SliceDeployment::parse("ep16"), 128);
  EXPECT_EQ(load.tokens, 2048);
  EXPECT_EQ(load.experts, 3);
  EXPECT_EQ(load.server_experts, 48);
  EXPECT_EQ(load.rail_blocks, 1);
  EXPECT_EQ(load.shared_rows, 128);
  EXPECT_EQ(load.expert_rows_mean, 128);
  EXPECT_EQ(load.arrived_rows, 128 * 3 * 15 / 16);
  EXPECT_EQ(load.exchange_back_bytes, 360 * 7168 * 2);
  EXPECT_DOUBLE_EQ(load.exchange_far, 8. / 15);  // the other server's
  EXPECT_EQ(load_of(SliceDeployment::parse("ep24"), 128).experts, 2);
  EXPECT_EQ(load_of(SliceDeployment::parse("2A2F"), 128).exchange_far, 0);
}

TEST(SliceDeployment, RefusesWhatItCannotBe) {
  const auto message = [](const char* text) -> std::string {
    try {
      SliceDeployment::parse(text);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      return error.what();
    }
    return "";
  };
  for (const char* text :
       {"", "2A", "A2F", "ep", "ep8", "2A2", "0A2F", "2A0F", "2F2A", "-1A2F", "99999999999A1F", "65A2F"})
    EXPECT_NE(message(text).find("wanted servers"), std::string::npos) << text;
  EXPECT_NE(message("2A2Fx").find("'x' is too much"), std::string::npos);
  EXPECT_NE(message("2A4F").find("48 experts cannot be spread evenly over 32"), std::string::npos);
}

// Paper, appendix of the deployment: 2,048 tokens of a micro-batch are 128 for each expert.
TEST(SliceLoad, OfThePapersDeployment) {
  const SliceLoad load = load_of(SliceDeployment::parse("2A2F"), 128);
  EXPECT_EQ(load.tokens, 2048);
  EXPECT_EQ(load.rail_blocks, 2);
  EXPECT_EQ(load.experts, 3);
  EXPECT_EQ(load.server_experts, 24);
  EXPECT_EQ(load.expert_rows_mean, 128);
  EXPECT_EQ(load.shared_rows, 64);
  EXPECT_EQ(load.arrived_rows, 3 * 128 * 7 / 8);
  EXPECT_EQ(load.exchange_out_bytes, 336 * (7168 + 224 + 24));
  EXPECT_EQ(load.exchange_back_bytes, 336 * 7168 * 2);
}

TEST(SliceLoad, WithMoreAttentionServersExpertsHaveMoreRows) {
  const SliceLoad load = load_of(SliceDeployment::parse("4A1F"), 30);
  EXPECT_EQ(load.experts, 6);
  EXPECT_EQ(load.expert_rows_mean, 60);
  EXPECT_EQ(load.shared_rows, 30);
}

struct Counts {
  std::array<std::int32_t, SliceModel::kExperts> of{};
  explicit Counts(const RoutingTable& table) {
    for (const std::int32_t id : table.ids) ++of.at(static_cast<std::size_t>(id));
  }
  std::int32_t sum(std::int32_t first, std::int32_t count) const {
    return std::accumulate(of.begin() + first, of.begin() + first + count, 0);
  }
};

TEST(RoutingTable, ThreeDifferentExpertsATokenAndTheBusiestGpuIsThisOne) {
  const SliceDeployment d = SliceDeployment::parse("2A2F");
  for (const double exponent : {0., .5, 2.}) {
    const RoutingTable table = routing_table(d, 2000, exponent, 7);
    ASSERT_EQ(table.ids.size(), 6000u);
    for (std::size_t i = 0; i < table.ids.size(); i += 3) {
      ASSERT_NE(table.ids[i], table.ids[i + 1]);
      ASSERT_NE(table.ids[i], table.ids[i + 2]);
      ASSERT_NE(table.ids[i + 1], table.ids[i + 2]);
    }
    const Counts counts(table);
    for (std::int32_t first = 0; first < SliceModel::kExperts; first += 3)
      EXPECT_LE(counts.sum(first, 3), counts.sum(table.first, 3));
    EXPECT_EQ(table.rows_max, *std::max_element(counts.of.begin() + table.first, counts.of.begin() + table.first + 3));
  }
}

TEST(RoutingTable, ZipfIsLessEvenThanUniform) {
  const SliceDeployment d = SliceDeployment::parse("2A2F");
  const auto busiest = [&](double exponent) {
    const RoutingTable table = routing_table(d, 4000, exponent, 3);
    return Counts(table).sum(table.first, 3);
  };
  EXPECT_LT(busiest(0), 1.2 * 4000 * 3 / 16);
  EXPECT_GT(busiest(.5), 1.2 * busiest(0));
}

TEST(RoutingTable, TheSameSeedDrawsTheSame) {
  const SliceDeployment d = SliceDeployment::parse("1A1F");
  EXPECT_EQ(routing_table(d, 100, .5, 1).ids, routing_table(d, 100, .5, 1).ids);
  EXPECT_NE(routing_table(d, 100, .5, 1).ids, routing_table(d, 100, .5, 2).ids);
}

}  // namespace
}  // namespace tandem
