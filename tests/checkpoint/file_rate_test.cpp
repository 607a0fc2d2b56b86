// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "checkpoint/file_rate.h"

#include <gmock/gmock.h>

#include "checkpoint/checkpoint.h"
#include "tests/base/error_of.h"
#include "tests/checkpoint/temporary_folder.h"

namespace tandem {
namespace {

using testing::HasSubstr;

TEST(FileRate, ReadsEveryByteOfEveryFile) {
  const TemporaryFolder folder;
  const std::vector<std::string> paths{folder.write("long", std::string((3 << 20) + 17, 'a')),
                                       folder.write("short", "b")};
  for (const int threads : {1, 3}) {
    for (const ReadTo to : {ReadTo::kOneBuffer, ReadTo::kNewMemory}) {
      const ReadResult result = read_files(paths, threads, to);
      EXPECT_EQ(result.bytes, (3 << 20) + 18);
      EXPECT_GT(result.seconds, 0);
    }
  }
  EXPECT_EQ(cached_fraction(paths), 1) << "what was just read is in memory";
  drop_from_cache(paths);  // which a file system in memory does not do
  EXPECT_LE(cached_fraction(paths), 1);
  EXPECT_EQ(read_files(paths, 2).bytes, (3 << 20) + 18);
}

TEST(FileRate, NamesTheFileThatCannotBeRead) {
  const TemporaryFolder folder;
  const std::vector<std::string> paths{folder.write("a", "a"), folder.path("missing")};
  EXPECT_THAT(error_of([&] { read_files(paths, 1); }).message(), HasSubstr("missing: No such file"));
  EXPECT_EQ(error_of([&] { drop_from_cache(paths); }).code(), ErrorCode::kNotFound);
  EXPECT_EQ(error_of([&] { cached_fraction(paths); }).code(), ErrorCode::kNotFound);
  EXPECT_THAT(error_of([&] { read_files({folder.path()}, 2); }).message(), HasSubstr("Is a directory"));
}

TEST(FileRate, KnowsTheFilesOfACheckpoint) {
  const auto checkpoint = Checkpoint::open("tests/goldens/step3_text_bf16");
  EXPECT_THAT(weight_files(*checkpoint),
              testing::ElementsAre(HasSubstr("model-00001"), HasSubstr("model-00002"), HasSubstr("model-00003")));
}

}  // namespace
}  // namespace tandem
