// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "trust/private_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "tests/base/error_of.h"
#include "tests/checkpoint/temporary_folder.h"

namespace tandem {
namespace {

using testing::HasSubstr;

TEST(PrivateFile, IsForItsOwnerAloneAndNeverOverwritten) {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/key";
  const mode_t had = umask(0);
  write_private_file(path, "text");
  umask(had);
  struct stat about = {};
  ASSERT_EQ(stat(path.c_str(), &about), 0);
  EXPECT_EQ(about.st_mode & 07777u, 0600u);
  EXPECT_EQ(read_private_file(path, 4), "text");
  const Error error = error_of([&] { write_private_file(path, "other"); });
  EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
  EXPECT_THAT(error.message(), HasSubstr("exists, and secrets are not overwritten"));
  EXPECT_EQ(read_private_file(path, 4), "text");
}

TEST(PrivateFile, WhatCannotBeIsSaid) {
  const TemporaryFolder folder;
  EXPECT_EQ(error_of([&] { write_private_file(folder.path() + "/no/such", ""); }).code(), ErrorCode::kPermissionDenied);
  write_private_file(folder.path() + "/long", "12345");
  EXPECT_THAT(error_of([&] { read_private_file(folder.path() + "/long", 4); }).message(),
              HasSubstr("more than 4 bytes"));
  for (const mode_t mode : {0604, 0602}) {
    chmod((folder.path() + "/long").c_str(), mode);
    EXPECT_EQ(error_of([&] { read_private_file(folder.path() + "/long", 9); }).code(), ErrorCode::kPermissionDenied);
  }
}

}  // namespace
}  // namespace tandem
