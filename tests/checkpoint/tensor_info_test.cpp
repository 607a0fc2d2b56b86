// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "checkpoint/tensor_info.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace tandem {
namespace {

using Dims = std::vector<std::uint64_t>;

TEST(TensorInfo, elements_are_counted_up_to_the_limit) {
  EXPECT_EQ(element_count(Dims{}), 1u);
  EXPECT_EQ(element_count(Dims{3, 5}), 15u);
  EXPECT_EQ(element_count(Dims{0, 5}), 0u);
  EXPECT_EQ(element_count(Dims{1ull << 24, 1ull << 24}), kTensorElementsMax);
  EXPECT_FALSE(element_count(Dims{1ull << 24, 1ull << 24, 2}));
  EXPECT_FALSE(element_count(Dims{kTensorElementsMax + 1}));
  EXPECT_FALSE(element_count(Dims{~0ull, ~0ull}));
  EXPECT_FALSE(element_count(Dims{~0ull, 0})) << "zero hides no overflow";
}

TEST(TensorInfo, dimensions_beyond_four_are_folded) {
  EXPECT_EQ(to_shape(Dims{}), Shape{});
  EXPECT_EQ(to_shape(Dims{2, 3}), (Shape{2, 3}));
  EXPECT_EQ(to_shape(Dims{2, 3, 4, 5, 6}), (Shape{2, 3, 4, 30}));
}

TEST(TensorInfo, names_in_messages_are_harmless) {
  EXPECT_EQ(printable("blk.0.weight"), "blk.0.weight");
  EXPECT_EQ(printable(std::string_view("a\n\x1b[31m\0z", 9)), "a??[31m?z");
  EXPECT_EQ(printable(std::string(1000, 'x')).size(), 123u);
}

}  // namespace
}  // namespace tandem
