// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "base/read_file.h"

#include <gtest/gtest.h>

#include <fstream>

#include "tests/base/error_of.h"

namespace tandem {
namespace {

TEST(ReadFile, ShowsOneByteMoreThanItMayHave) {
  const std::string path = testing::TempDir() + "tandem_read_file_test";
  std::ofstream(path, std::ios::binary) << std::string("ab\0d", 4);
  EXPECT_EQ(read_file_start(path, 10), std::string("ab\0d", 4));
  EXPECT_EQ(read_file_start(path, 4), std::string("ab\0d", 4));
  EXPECT_EQ(read_file_start(path, 2), std::string("ab\0", 3));
}

TEST(ReadFile, NamesWhatIsNotThere) {
  const Error error = error_of([] { read_file_start("/no/such/file", 10); });
  EXPECT_EQ(error.code(), ErrorCode::kNotFound);
  EXPECT_EQ(error.message(), "/no/such/file: cannot be opened");
}

}  // namespace
}  // namespace tandem
