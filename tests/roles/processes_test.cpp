// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "roles/processes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include "base/format.h"

namespace tandem {
namespace {

using testing::HasSubstr;

// All events until nothing runs.
std::vector<Processes::Event> events_of(Processes& processes) {
  std::vector<Processes::Event> all;
  while (processes.running() > 0)
    for (Processes::Event& event : processes.wait(-1, 1000)) all.push_back(std::move(event));
  return all;
}

TEST(Processes, LinesOfBothStreamsAreHeardAndThenTheEnd) {
  Processes processes;
  processes.start("talker", {"/bin/sh", "-c", "echo one; echo two >&2; printf three"});
  const auto events = events_of(processes);
  ASSERT_EQ(events.size(), 4u);
  EXPECT_EQ(events[0].line, "one");
  EXPECT_EQ(events[1].line, "two");
  EXPECT_EQ(events[2].line, "three");
  EXPECT_TRUE(events[3].ended);
  EXPECT_FALSE(events[3].failed);
  EXPECT_THAT(events[3].line, HasSubstr("has ended with status 0"));
}

TEST(Processes, HowOneEndedIsTold) {
  Processes processes;
  processes.start("bad", {"/bin/sh", "-c", "exit 3"});
  auto events = events_of(processes);
  ASSERT_EQ(events.size(), 1u);
  EXPECT_TRUE(events[0].failed);
  EXPECT_THAT(events[0].line, HasSubstr("status 3"));
  processes.start("killed", {"/bin/sh", "-c", "kill -9 $$"});
  events = events_of(processes);
  ASSERT_EQ(events.size(), 1u);
  EXPECT_TRUE(events[0].failed);
  EXPECT_THAT(events[0].line, HasSubstr("ended by signal 9"));
  processes.start("nowhere", {"/no/such/program"});
  events = events_of(processes);
  ASSERT_EQ(events.size(), 1u);
  EXPECT_THAT(events[0].line, HasSubstr("status 127"));
}

TEST(Processes, StopAsksFirstAndThenEndsThem) {
  Processes processes;
  processes.start("polite",
                  {"/bin/sh", "-c", "trap 'echo leaving; exit 0' TERM; echo up; while :; do sleep 0.01; done"});
  processes.start("deaf", {"/bin/sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.01; done"});
  for (int up = 0; up < 2;)
    for (const Processes::Event& event : processes.wait(-1, 1000)) up += event.line == "up";
  EXPECT_GT(processes.process("deaf"), 0);
  std::string polite, deaf;
  for (const Processes::Event& event : processes.stop(500)) (event.name == "deaf" ? deaf : polite) += event.line + "; ";
  EXPECT_THAT(polite, HasSubstr("leaving; "));
  EXPECT_THAT(polite, HasSubstr("status 0"));
  EXPECT_THAT(deaf, HasSubstr("signal 9"));
  EXPECT_EQ(processes.running(), 0u);
  EXPECT_EQ(processes.process("deaf"), 0);
}

}  // namespace
}  // namespace tandem
