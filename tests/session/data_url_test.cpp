// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "session/data_url.h"

#include <gmock/gmock.h>

#include "tests/base/error_of.h"

namespace tandem {
namespace {

using testing::HasSubstr;

TEST(DataUrl, GivesTheBytesOfAnyLength) {
  EXPECT_EQ(read_data_url("data:image/png;base64,", 10), "");
  EXPECT_EQ(read_data_url("data:image/png;base64,Zg==", 10), "f");
  EXPECT_EQ(read_data_url("data:;base64,Zm8=", 2), "fo");
  EXPECT_EQ(read_data_url("data:image/jpeg;x=y;base64,Zm9v", 10), "foo");
  EXPECT_EQ(read_data_url("data:image/png;base64,Zm9vYg", 10), "foob");  // padding may be left out
  EXPECT_EQ(read_data_url("data:image/png;base64,+/8A", 10), std::string("\xfb\xff\x00", 3));
}

TEST(DataUrl, RefusesWithAReason) {
  const auto refusal = [](std::string_view url) { return error_of([&] { read_data_url(url, 10); }).message(); };
  EXPECT_THAT(refusal("http://x/y"), HasSubstr("not a data URL"));
  EXPECT_THAT(refusal("data:image/png,abc"), HasSubstr("must be data:TYPE;base64,DATA"));
  EXPECT_THAT(refusal("data:image/png;base64"), HasSubstr("must be data:TYPE;base64,DATA"));
  EXPECT_THAT(refusal("data:" + std::string(500, 'x') + ";base64,Zg=="), HasSubstr("must be"));
  EXPECT_THAT(refusal("data:;base64,Zm 9"), HasSubstr("character 3 of its data is not base64"));
  EXPECT_THAT(refusal("data:;base64,Zm9v="), HasSubstr("cut short"));
  EXPECT_THAT(refusal("data:;base64,Zm9vY"), HasSubstr("cut short"));
  EXPECT_THAT(refusal("data:;base64,Z==="), HasSubstr("not base64"));
  EXPECT_THAT(refusal("data:;base64," + std::string(40, 'A')), HasSubstr("it has 30 bytes, limit is 10"));
}

}  // namespace
}  // namespace tandem
