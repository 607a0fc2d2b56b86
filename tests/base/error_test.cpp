// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "base/error.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace tandem {
namespace {

TEST(Error, carries_code_and_message) {
  const Error error(ErrorCode::kNotFound, "no such thing");
  EXPECT_EQ(error.code(), ErrorCode::kNotFound);
  EXPECT_EQ(error.message(), "no such thing");
  EXPECT_STREQ(error.what(), "no such thing");
}

TEST(Error, every_code_has_its_own_name) {
  std::set<std::string_view> names;
  for (int code = 0; code <= static_cast<int>(ErrorCode::kInternal); ++code) {
    EXPECT_NE(name(static_cast<ErrorCode>(code)), "unknown") << code;
    EXPECT_TRUE(names.insert(name(static_cast<ErrorCode>(code))).second) << code;
  }
}

TEST(Status, is_ok_or_holds_an_error) {
  EXPECT_TRUE(Status::ok());
  const Status failed(ErrorCode::kUnavailable, "peer is gone");
  EXPECT_FALSE(failed);
  EXPECT_EQ(failed.error().code(), ErrorCode::kUnavailable);
}

TEST(Result, is_a_value_or_an_error) {
  Result<std::string> good("value");
  ASSERT_TRUE(good);
  EXPECT_EQ(good.value(), "value");
  Result<std::string> bad(ErrorCode::kOutOfResources, "queue is full");
  ASSERT_FALSE(bad);
  EXPECT_EQ(bad.error().message(), "queue is full");
}

TEST(CheckDeath, names_condition_and_message) {
  EXPECT_DEATH(TANDEM_CHECK(1 + 1 == 3, "arithmetic"), "bug at .*1 \\+ 1 == 3 is false: arithmetic");
  Result<int> bad(ErrorCode::kInternal, "nothing");
  EXPECT_DEATH(bad.value(), "no value in a failed result");
}

}  // namespace
}  // namespace tandem
