// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The conversions of src/checkpoint/gguf_array.cpp, on arrays as the parser hands them out.
#include <gmock/gmock.h>

#include "checkpoint/gguf.h"
#include "tests/base/error_of.h"
#include "tests/checkpoint/bytes.h"

namespace tandem {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

GgufArray array(GgufValueType element, std::uint64_t count, const Bytes& bytes) {
  return {element, count, bytes.span()};
}

TEST(GgufArray, every_number_type_widens) {
  const Bytes bytes = Bytes().u64(0xff80ff7f'3fc000feull);
  EXPECT_THAT(integers(array(GgufValueType::kU8, 2, bytes)), ElementsAre(0xfe, 0));
  EXPECT_THAT(integers(array(GgufValueType::kI8, 2, bytes)), ElementsAre(-2, 0));
  EXPECT_THAT(integers(array(GgufValueType::kU16, 3, bytes)), ElementsAre(0xfe, 0x3fc0, 0xff7f));
  EXPECT_THAT(integers(array(GgufValueType::kI16, 3, bytes)), ElementsAre(0xfe, 0x3fc0, -129));
  EXPECT_THAT(integers(array(GgufValueType::kU32, 2, bytes)), ElementsAre(0x3fc000fe, 0xff80ff7fll));
  EXPECT_THAT(integers(array(GgufValueType::kI32, 2, bytes)), ElementsAre(0x3fc000fe, -8323201));
  EXPECT_THAT(integers(array(GgufValueType::kI64, 1, bytes)),
              ElementsAre(static_cast<std::int64_t>(0xff80ff7f3fc000feull)));
  EXPECT_THAT(numbers(array(GgufValueType::kI8, 1, bytes)), ElementsAre(-2));
  EXPECT_THAT(numbers(array(GgufValueType::kF32, 2, Bytes().number(1.5f).number(-0.25f))), ElementsAre(1.5, -0.25));
  EXPECT_THAT(numbers(array(GgufValueType::kF64, 1, Bytes().number(1e300))), ElementsAre(1e300));
}

TEST(GgufArray, integers_must_fit) {
  const Bytes bytes = Bytes().u64((1ull << 63) - 1).u64(1ull << 63);
  EXPECT_THAT(integers(array(GgufValueType::kU64, 1, bytes)), ElementsAre((1ull << 63) - 1));
  EXPECT_THAT(error_of([&] { integers(array(GgufValueType::kU64, 2, bytes)); }).message(), HasSubstr("over 2^63 - 1"));
  EXPECT_THAT(numbers(array(GgufValueType::kU64, 2, bytes)), ElementsAre(0x1p63, 0x1p63));
}

TEST(GgufArray, strings_are_views_of_the_bytes) {
  const Bytes bytes = Bytes().string("a").string("").string("bc");
  const auto texts = strings(array(GgufValueType::kString, 3, bytes));
  EXPECT_THAT(texts, ElementsAre("a", "", "bc"));
  EXPECT_EQ(static_cast<const void*>(texts[0].data()), bytes.span().data() + 8);
  EXPECT_TRUE(strings(array(GgufValueType::kString, 0, Bytes())).empty());
}

TEST(GgufArray, other_element_types_are_refused) {
  const Bytes bytes = Bytes().u64(0);
  EXPECT_THAT(error_of([&] { strings(array(GgufValueType::kU8, 1, bytes)); }).message(), HasSubstr("an array of u8"));
  EXPECT_THAT(error_of([&] { integers(array(GgufValueType::kF32, 1, bytes)); }).message(),
              HasSubstr("an array of f32"));
  EXPECT_THAT(error_of([&] { numbers(array(GgufValueType::kString, 1, bytes)); }).message(),
              HasSubstr("an array of string"));
  EXPECT_THAT(error_of([&] { numbers(array(GgufValueType::kBool, 1, bytes)); }).message(),
              HasSubstr("an array of bool"));
}

}  // namespace
}  // namespace tandem
