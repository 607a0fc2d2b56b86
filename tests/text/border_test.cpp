// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "text/border.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace tandem {
namespace {

TEST(Border, StatusesBecomeErrorsThatSayWhatAndWhy) {
  // A tokenizer of no bytes is the shortest way to a message of the library's own.
  const std::string_view nothing;
  BorderBuffer message;
  TandemTokenizer* tokenizer = nullptr;
  const TandemStatus status = tandem_tokenizer_load(border_bytes(nothing), nothing.size(), &tokenizer, message.out());
  ASSERT_NE(status, TandemOk);
  ASSERT_FALSE(message.view().empty());
  try {
    require_ok(status, message, "the file");
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidData);
    EXPECT_EQ(error.message(), "the file: " + std::string(message.view()));
  }
  EXPECT_NO_THROW(require_ok(TandemOk, message, "the file"));
}

TEST(Border, EachStatusHasItsCode) {
  const BorderBuffer empty;
  const auto code = [&](TandemStatus status) {
    try {
      require_ok(status, empty, "x");
    } catch (const Error& error) {
      return error.code();
    }
    return ErrorCode::kInternal;
  };
  EXPECT_EQ(code(TandemInvalidArgument), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code(TandemInvalidData), ErrorCode::kInvalidData);
  EXPECT_EQ(code(TandemPanicked), ErrorCode::kInvalidData);
  EXPECT_EQ(code(TandemOutOfResources), ErrorCode::kOutOfResources);
}

}  // namespace
}  // namespace tandem
