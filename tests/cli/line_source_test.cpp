// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "cli/line_source.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "base/error.h"
#include "cli/interrupt.h"

namespace tandem {
namespace {

class LineSourceTest : public testing::Test {
 protected:
  void TearDown() override { std::filesystem::remove(path_); }
  void write(const std::string& text) const { std::ofstream(path_) << text; }
  const std::string path_ = testing::TempDir() + "tandem_lines";
};

TEST_F(LineSourceTest, LinesWithAndWithoutAnEnd) {
  write("one\n\nthree");
  LineSource source(path_);
  EXPECT_EQ(source.next(-1), "one");
  EXPECT_EQ(source.next(-1), "");
  EXPECT_FALSE(source.ended());
  EXPECT_EQ(source.next(-1), "three");
  EXPECT_EQ(source.next(-1), std::nullopt);
  EXPECT_TRUE(source.ended());
}

TEST_F(LineSourceTest, LongLinesCrossReads) {
  const std::string line(300'000, 'x');
  write(line + "\n" + line + "y\n");
  LineSource source(path_);
  EXPECT_EQ(source.next(-1), line);
  EXPECT_EQ(source.next(-1), line + "y");
}

TEST_F(LineSourceTest, RestIsEverythingThatIsLeft) {
  write("one\ntwo\nthree\n");
  LineSource source(path_);
  EXPECT_EQ(source.next(-1), "one");
  EXPECT_EQ(source.rest(), "two\nthree\n");
  EXPECT_TRUE(source.ended());
}

TEST_F(LineSourceTest, AWriterWhoWaitsHoldsNobodyUp) {
  ASSERT_EQ(mkfifo(path_.c_str(), 0600), 0);
  std::ofstream writer;
  std::thread opener([&] { writer.open(path_); });
  LineSource source(path_);
  opener.join();
  EXPECT_EQ(source.next(0), std::nullopt);
  writer << "half" << std::flush;
  EXPECT_EQ(source.next(10), std::nullopt);
  EXPECT_FALSE(source.ended());
  writer << " a line\n" << std::flush;
  EXPECT_EQ(source.next(1000), "half a line");
  writer.close();
  EXPECT_EQ(source.next(1000), std::nullopt);
  EXPECT_TRUE(source.ended());
}

TEST_F(LineSourceTest, NamesTheFile) {
  try {
    LineSource source("/nowhere/lines");
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kNotFound);
    EXPECT_NE(error.message().find("/nowhere/lines"), std::string::npos);
  }
  EXPECT_THROW(LineSource(testing::TempDir()).next(-1), Error);  // a folder
}

TEST(InterruptWatch, TellsOnce) {
  InterruptWatch watch;
  EXPECT_FALSE(watch.take());
  raise(SIGINT);
  raise(SIGINT);
  EXPECT_TRUE(watch.take());
  EXPECT_FALSE(watch.take());
}

}  // namespace
}  // namespace tandem
