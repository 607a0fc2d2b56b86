// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "checkpoint/mapped_file.h"

#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <utility>

#include "tests/base/error_of.h"
#include "tests/checkpoint/temporary_folder.h"

namespace tandem {
namespace {

using ::testing::HasSubstr;

TEST(MappedFile, shows_the_bytes_of_the_file) {
  const TemporaryFolder folder;
  MappedFile file = MappedFile::open(folder.write("a", "hello"));
  ASSERT_EQ(file.size(), 5u);
  EXPECT_EQ(file.bytes()[4], static_cast<std::byte>('o'));
  EXPECT_EQ(file.bytes(1, 3).size(), 3u);
  EXPECT_EQ(file.bytes(5, 0).size(), 0u);
  const std::byte* const data = file.bytes().data();
  const MappedFile moved = std::move(file);
  EXPECT_EQ(moved.bytes().data(), data);
  EXPECT_EQ(moved.path(), folder.path("a"));
}

TEST(MappedFile, released_pages_come_back_from_the_file) {
  const TemporaryFolder folder;
  std::string text(64 << 10, 'x');
  text[0] = 'a', text[40000] = 'b', text.back() = 'c';
  const MappedFile file = MappedFile::open(folder.write("a", text));
  file.prefetch(1, text.size() - 1);
  file.release(0, text.size());
  file.release(100, 50);  // no whole page inside: nothing to do
  EXPECT_EQ(file.bytes()[0], static_cast<std::byte>('a'));
  EXPECT_EQ(file.bytes()[40000], static_cast<std::byte>('b'));
  EXPECT_EQ(file.bytes()[text.size() - 1], static_cast<std::byte>('c'));
}

TEST(MappedFile, says_why_it_cannot_open) {
  const TemporaryFolder folder;
  const auto refused = [](const std::string& path) { return error_of([&] { MappedFile::open(path); }); };

  EXPECT_EQ(refused(folder.path("missing")).code(), ErrorCode::kNotFound);
  EXPECT_THAT(refused(folder.path("missing")).message(), HasSubstr(folder.path("missing")));
  EXPECT_EQ(refused(folder.write("file", "x") + "/below").code(), ErrorCode::kNotFound);
  EXPECT_THAT(refused(folder.path()).message(), HasSubstr("is a directory"));
  EXPECT_THAT(refused(folder.write("empty", "")).message(), HasSubstr("file is empty"));
  ASSERT_EQ(mkfifo(folder.path("pipe").c_str(), 0600), 0);
  EXPECT_THAT(refused(folder.path("pipe")).message(), HasSubstr("not a regular file"));
}

TEST(MappedFile, says_when_rights_are_missing) {
  if (geteuid() == 0) GTEST_SKIP() << "root may read everything";
  const TemporaryFolder folder;
  const std::string path = folder.write("secret", "x");
  ASSERT_EQ(chmod(path.c_str(), 0), 0);
  EXPECT_EQ(error_of([&] { MappedFile::open(path); }).code(), ErrorCode::kPermissionDenied);
}

TEST(MappedFileDeath, ranges_stay_inside) {
  const TemporaryFolder folder;
  const MappedFile file = MappedFile::open(folder.write("a", "hello"));
  EXPECT_DEATH(file.bytes(4, 2), "outside the mapped file");
  EXPECT_DEATH(file.bytes(1, ~0ull), "outside the mapped file");
}

}  // namespace
}  // namespace tandem
