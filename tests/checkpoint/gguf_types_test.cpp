// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "checkpoint/gguf_types.h"

#include <gtest/gtest.h>

#include <set>

namespace tandem {
namespace {

TEST(GgufTensorType, finds_by_number) {
  ASSERT_NE(find_gguf_tensor_type(8), nullptr);
  EXPECT_EQ(find_gguf_tensor_type(8)->dtype, DType::kQ8_0);
  ASSERT_NE(find_gguf_tensor_type(11), nullptr);
  EXPECT_EQ(find_gguf_tensor_type(11)->name, "Q3_K");
  EXPECT_FALSE(find_gguf_tensor_type(11)->dtype);
  EXPECT_EQ(find_gguf_tensor_type(4), nullptr) << "a number that was withdrawn";
  EXPECT_EQ(find_gguf_tensor_type(~0u), nullptr);
}

TEST(GgufTensorType, names_and_types_are_used_once) {
  std::set<std::string_view> names;
  std::set<DType> dtypes;
  for (std::uint32_t number = 0; number < 256; ++number) {
    const GgufTensorType* type = find_gguf_tensor_type(number);
    if (!type) continue;
    EXPECT_EQ(type->number, number);
    EXPECT_TRUE(names.insert(type->name).second) << type->name;
    if (type->dtype) {
      EXPECT_TRUE(dtypes.insert(*type->dtype).second) << type->name;
    }
  }
}

}  // namespace
}  // namespace tandem
