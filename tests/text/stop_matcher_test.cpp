// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "text/stop_matcher.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"
#include "base/rng.h"

namespace tandem {
namespace {

TEST(StopMatcher, HoldsBackWhatMayBecomeAStop) {
  StopMatcher matcher({"</s>", "END"});
  EXPECT_EQ(matcher.push("hello <").text, "hello ");
  EXPECT_EQ(matcher.push("/").text, "");
  EXPECT_EQ(matcher.push("x").text, "</x");
  const auto output = matcher.push(" the EN");
  EXPECT_EQ(output.text, " the ");
  EXPECT_FALSE(output.stopped);
  const auto last = matcher.push("D of it");
  EXPECT_TRUE(last.stopped);
  EXPECT_EQ(last.text, "");
  EXPECT_EQ(matcher.push("more").text, "");
  EXPECT_EQ(matcher.finish(), "");
}

TEST(StopMatcher, FinishGivesWhatWasHeld) {
  StopMatcher matcher({"abc"});
  EXPECT_EQ(matcher.push("xab").text, "x");
  EXPECT_EQ(matcher.finish(), "ab");
}

TEST(StopMatcher, WithoutStopsEverythingPasses) {
  StopMatcher matcher({});
  EXPECT_EQ(matcher.push("anything").text, "anything");
}

TEST(StopMatcher, RefusesEmptyLongAndMany) {
  EXPECT_THROW(StopMatcher({""}), Error);
  EXPECT_THROW(StopMatcher({std::string(kStopStringBytesMax + 1, 'a')}), Error);
  EXPECT_THROW(StopMatcher(std::vector<std::string>(kStopStringsMax + 1, "a")), Error);
}

// However the text is cut, the result is that of a plain search: cut before the stop string that ends first.
TEST(StopMatcher, AgreesWithPlainSearch) {
  Rng rng(3);
  for (int round = 0; round < 2000; ++round) {
    const auto random_text = [&](std::size_t size) {
      std::string text(size, 'a');
      for (char& c : text) c = static_cast<char>('a' + rng.below(3));
      return text;
    };
    std::vector<std::string> stops;
    for (std::uint64_t i = rng.below(4); i > 0; --i) stops.push_back(random_text(1 + rng.below(4)));
    const std::string text = random_text(rng.below(30));
    std::string expected = text;
    bool stopped = false;
    for (std::size_t end = 1; end <= text.size() && !stopped; ++end)
      for (const std::string& stop : stops)
        if (text.substr(0, end).ends_with(stop)) {
          expected.resize(std::min(expected.size(), end - stop.size()));
          stopped = true;
        }
    StopMatcher matcher(stops);
    std::string actual;
    bool actual_stopped = false;
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t size = 1 + rng.below(5);
      const auto output = matcher.push(text.substr(at, size));
      actual += output.text;
      actual_stopped = output.stopped;
      at += size;
    }
    actual += matcher.finish();
    ASSERT_EQ(actual, expected) << "round " << round << " text " << text;
    ASSERT_EQ(actual_stopped, stopped);
  }
}

}  // namespace
}  // namespace tandem
