// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "model/share.h"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "ops/weight.h"

namespace tandem {
namespace {

constexpr std::int32_t kExpertCounts[] = {0, 1, 6, 8, 48, 257};

TEST(FfnShare, slices_tile_the_width_in_order_as_whole_subtrees) {
  for (std::int32_t count = 1; count <= 12; ++count) {
    SCOPED_TRACE(count);
    std::int32_t next = 0;
    for (std::int32_t i = 0; i < count; ++i) {
      const FfnShare share = ffn_share(i, count, 48);
      if (i >= KSlices::kCountMax) {
        EXPECT_EQ(share.slice_count, 0) << "worker " << i << " holds experts only";
        continue;
      }
      ASSERT_GT(share.slice_count, 0) << "worker " << i;
      EXPECT_EQ(share.slice_first, next) << "worker " << i;
      EXPECT_EQ(share.slice_count & (share.slice_count - 1), 0) << "worker " << i;
      EXPECT_EQ(share.slice_first % share.slice_count, 0) << "worker " << i;
      next += share.slice_count;
    }
    EXPECT_EQ(next, KSlices::kCountMax);
  }
}

TEST(FfnShare, the_last_largest_part_is_halved_first) {
  const std::vector<std::vector<std::int32_t>> expected{{8},
                                                        {4, 4},
                                                        {4, 2, 2},
                                                        {2, 2, 2, 2},
                                                        {2, 2, 2, 1, 1},
                                                        {2, 2, 1, 1, 1, 1},
                                                        {2, 1, 1, 1, 1, 1, 1},
                                                        {1, 1, 1, 1, 1, 1, 1, 1}};
  for (const std::vector<std::int32_t>& parts : expected) {
    const auto count = static_cast<std::int32_t>(parts.size());
    for (std::int32_t i = 0; i < count; ++i)
      EXPECT_EQ(ffn_share(i, count, 0).slice_count, parts[i]) << "worker " << i << " of " << count;
  }
}

TEST(FfnShare, experts_tile_in_even_contiguous_ranges) {
  for (const std::int32_t experts : kExpertCounts) {
    for (std::int32_t count = 1; count <= 12; ++count) {
      SCOPED_TRACE(testing::Message() << experts << " experts, " << count << " workers");
      std::int32_t next = 0;
      for (std::int32_t i = 0; i < count; ++i) {
        const FfnShare share = ffn_share(i, count, experts);
        EXPECT_EQ(share.expert_begin, next);
        EXPECT_GE(share.expert_end - share.expert_begin, experts / count);
        EXPECT_LE(share.expert_end - share.expert_begin, (experts + count - 1) / count);
        next = share.expert_end;
      }
      EXPECT_EQ(next, experts);
    }
  }
}

TEST(FfnShare, groups_of_experts_are_cut_by_width_into_equal_parts_in_order) {
  for (const std::int32_t width : {1, 2, 4, 8}) {
    for (const std::int32_t groups : {1, 2, 3, 7}) {
      SCOPED_TRACE(testing::Message() << groups << " x " << width);
      for (std::int32_t i = 0; i < groups * width; ++i) {
        const FfnShare share = ffn_share(i, FfnSplit{groups, width}, 48), whole = ffn_share(i / width, groups, 48);
        EXPECT_EQ(share.expert_begin, whole.expert_begin);
        EXPECT_EQ(share.expert_end, whole.expert_end);
        EXPECT_EQ(share.width_count, KSlices::kCountMax / width);
        EXPECT_EQ(share.width_first, i % width * share.width_count);
        EXPECT_EQ(share.cuts_experts(), width > 1);
        // What every token uses does not mind how experts are cut.
        EXPECT_EQ(share.slice_first, ffn_share(i, groups * width, 48).slice_first);
        EXPECT_EQ(share.slice_count, ffn_share(i, groups * width, 48).slice_count);
      }
    }
  }
}

TEST(FfnShare, every_expert_has_one_owner) {
  for (std::int32_t expert = 0; expert < 48; ++expert) {
    int owners = 0;
    for (std::int32_t i = 0; i < 5; ++i) owners += ffn_share(i, 5, 48).owns(expert);
    EXPECT_EQ(owners, 1) << "expert " << expert;
  }
  EXPECT_FALSE(ffn_share(0, 1, 48).owns(-1));
  EXPECT_FALSE(ffn_share(0, 1, 48).owns(48));
}

TEST(FfnShareDeathTest, a_worker_outside_the_layout_is_a_bug) {
  EXPECT_DEATH(ffn_share(2, 2, 8), "outside the layout");
  EXPECT_DEATH(ffn_share(-1, 2, 8), "outside the layout");
}

}  // namespace
}  // namespace tandem
