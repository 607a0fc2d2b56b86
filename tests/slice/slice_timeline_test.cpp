// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "slice/slice_timeline.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "base/error.h"
#include "base/json.h"

namespace tandem {
namespace {

// Layers and micro-batches one after the other, a hundred microseconds each.
SliceTrace trace() {
  SliceTrace trace{.steps = 3, .layers = 2, .micro_batches = 2};
  for (int i = 0; i < 12; ++i) {
    const double from = 1000 + 100. * i;
    trace.times.push_back({.returned = from,
                           .handed_over = from + 30,
                           .seen = from + 35,
                           .gathered = from + 40,
                           .begun = from + 41,
                           .multiplied = from + 80,
                           .sent = from + 90});
  }
  return trace;
}

std::map<std::string, int> spans_by_category(const Json& timeline) {
  std::map<std::string, int> count;
  for (const Json& event : timeline.at("traceEvents"))
    if (event.at("ph") == "X") ++count[event.at("cat").get<std::string>()];
  return count;
}

TEST(SliceTimeline, HasASpanForEveryStageOfTheLastSteps) {
  const Json timeline = Json::parse(slice_timeline(trace(), 2));
  const std::map<std::string, int> spans = spans_by_category(timeline);
  for (const char* stage : {"attention", "to the FFN", "gather", "products", "sums"})
    EXPECT_EQ(spans.at(stage), 8) << stage;
  EXPECT_EQ(spans.at("to attention"), 6);  // the last layer's returns are in no step of the trace
  double earliest = 1e9;
  for (const Json& event : timeline.at("traceEvents"))
    if (event.at("ph") == "X") {
      earliest = std::min(earliest, event.at("ts").get<double>());
      EXPECT_GE(event.at("args").at("step").get<int>(), 1);
      EXPECT_GT(event.at("dur").get<double>(), 0);
    }
  EXPECT_EQ(earliest, 0);
}

TEST(SliceTimeline, MoreStepsThanThereAreIsAllOfThem) {
  EXPECT_EQ(spans_by_category(Json::parse(slice_timeline(trace(), 9))).at("products"), 12);
}

TEST(SliceTimeline, OfOneSideHasNothingOfTheOther) {
  SliceTrace one = trace();
  one.attention = false;
  const std::map<std::string, int> spans = spans_by_category(Json::parse(slice_timeline(one, 3)));
  EXPECT_EQ(spans.size(), 3u);
  EXPECT_EQ(spans.at("sums"), 12);
}

TEST(SliceTimeline, IsWrittenToAFile) {
  const std::filesystem::path path = std::filesystem::path(testing::TempDir()) / "slice_timeline.json";
  write_slice_timeline(trace(), 1, path.string());
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  EXPECT_EQ(text.str(), slice_timeline(trace(), 1));
  std::filesystem::remove(path);
}

TEST(SliceTimeline, AFolderThatIsNotThereIsNamed) {
  try {
    write_slice_timeline(trace(), 1, testing::TempDir() + "no/such/folder/timeline.json");
    FAIL() << "written to nowhere";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_THAT(error.what(), testing::HasSubstr("no/such/folder/timeline.json: No such file"));
  }
}

}  // namespace
}  // namespace tandem
