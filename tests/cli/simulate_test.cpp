// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/cli/program.h"

namespace tandem {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(Simulate, TellsWhatItDidAndOnlyThat) {
  const ProgramResult run = run_program({"simulate", "--seeds", "2", "--layout", "1A1F,2A1F"});
  EXPECT_EQ(run.status, 0) << run.out << run.err;
  EXPECT_THAT(run.out, HasSubstr("seeds              2, 0 failed"));
  EXPECT_THAT(run.out, HasSubstr("hand-over messages"));
  EXPECT_THAT(run.out, Not(HasSubstr("asks")));
}

TEST(Simulate, ASeedIsToldAgainAlike) {
  const std::vector<std::string> arguments{"simulate", "--seeds",  "1",    "--first-seed",
                                           "7",        "--layout", "1A1F", "--log"};
  const ProgramResult first = run_program(arguments), again = run_program(arguments);
  EXPECT_EQ(first.status, 0) << first.err;
  EXPECT_THAT(first.out, HasSubstr("running   epoch 1"));
  EXPECT_EQ(first.out, again.out);
}

TEST(Simulate, RefusesALayoutOfOneProcessAndAModelThatIsNotThere) {
  const ProgramResult local = run_program({"simulate", "--layout", "local"});
  EXPECT_EQ(local.status, 2);
  EXPECT_THAT(local.err, HasSubstr("give layouts such as 2A1F"));
  const ProgramResult many = run_program({"simulate", "--layout", "1A1F+0"});
  EXPECT_EQ(many.status, 2);
  EXPECT_THAT(many.err, HasSubstr("--layout 1A1F+0: after + comes how many replicas, 1 …"));
  const ProgramResult by_width = run_program({"simulate", "--layout", "1A1x2F"});
  EXPECT_EQ(by_width.status, 2);
  EXPECT_THAT(by_width.err, HasSubstr("--layout 1A1x2F: simulated layouts do not cut experts by width"));
  const ProgramResult absent = run_program({"simulate", "--model", "/nowhere"});
  EXPECT_EQ(absent.status, 1);
  EXPECT_THAT(absent.err, HasSubstr("/nowhere"));
}

}  // namespace
}  // namespace tandem
