// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The command line itself: help, version, and what makes no sense.
#include "cli/command.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "tests/cli/program.h"

namespace tandem {
namespace {

using testing::HasSubstr;

constexpr const char* kModel = "tests/goldens/llama";

TEST(Command, HelpComesFromTheTable) {
  const ProgramResult all = run_program({"--help"});
  EXPECT_EQ(all.status, 0);
  for (const Subcommand& command : commands()) {
    std::vector<std::string> words;
    std::istringstream name(command.name);
    for (std::string word; name >> word;) words.push_back(word);
    EXPECT_THAT(all.out, HasSubstr(words.front()));
    words.push_back("--help");
    const ProgramResult help = run_program(words);
    EXPECT_EQ(help.status, 0) << command.name;
    EXPECT_THAT(help.out, HasSubstr(command.summary));
    EXPECT_THAT(help.out, HasSubstr(command.details));
    EXPECT_EQ(help.err, "");
  }
}

TEST(Command, VersionHasBuildFacts) {
  const ProgramResult version = run_program({"--version"});
  EXPECT_EQ(version.status, 0);
  for (const char* fact : {"tandem ", "compiler ", "build type ", "cpu variant  baseline  runs here"})
    EXPECT_THAT(version.out, HasSubstr(fact));
}

struct Fault {
  std::vector<std::string> arguments;
  int status;
  std::string message;
};

TEST(Command, FaultsNameTheThing) {
  const std::vector<Fault> faults{
      {{}, 2, "a command is missing (see tandem --help)"},
      {{"sing"}, 2, "sing"},
      {{"bench"}, 2, "tandem bench --help"},
      {{"bench", "nothing"}, 2, "nothing"},
      {{"chat", "--modle", "x"}, 2, "--modle"},
      {{"chat"}, 2, "--model is required"},
      {{"generate", "--model", kModel}, 2, "give one of these"},
      {{"generate", "--model", kModel, "--text", "a", "b"}, 2, "--text"},
      {{"generate", "--model", kModel, "a", "--layout", "1F1A"}, 2, "layout is \"1F1A\""},
      {{"generate", "--model", kModel, "a", "--layout", "99A1F"}, 2, "1 … 64"},
      {{"generate", "--model", kModel, "a", "--kv-dtype", "f16"}, 2, "--kv-dtype"},
      {{"generate", "--model", kModel, "a", "--threads", "two"}, 2, "--threads"},
      {{"generate", "--model", kModel, "a", "--logit-bias", "3"}, 2, "TOKEN-ID:BIAS"},
      {{"generate", "--model", kModel, "a", "--threads", "5000"}, 1, "thread count is 5000"},
      {{"generate", "--model", kModel, "a", "--micro-batches", "5"}, 1, "micro-batch count is 5"},
      {{"generate", "--model", kModel, "a", "--context-tokens-max", "600"}, 1, "(--context-tokens-max)"},
      {{"generate", "--model", kModel, "a", "--kv-tokens", "99999999999"}, 1, "(--kv-tokens)"},
      {{"generate", "--model", kModel, "a", "--device", "npu"}, 1, "backend is \"npu\""},
      {{"generate", "--model", kModel, "a", "--kv-dtype", "fp8"}, 1, "not f8_e4m3 (--kv-dtype)"},
      {{"generate", "--model", kModel, "a", "--cpu-variant", "mmx"}, 1, "mmx"},
      {{"generate", "--model", kModel, "a", "--trace", "/nowhere/trace.json"}, 1, "/nowhere/trace.json"},
      {{"generate", "--model", kModel, "--file", "/nowhere/prompt"}, 1, "/nowhere/prompt"},
      {{"chat", "--model", "/nowhere/model"}, 1, "/nowhere/model"},
      {{"inspect", "tests/goldens"}, 1, "tests/goldens"},
      {{"verify", "tests/goldens"}, 1, "tests/goldens"},
  };
  for (const Fault& fault : faults) {
    SCOPED_TRACE(fault.message);
    const ProgramResult result = run_program(fault.arguments);
    EXPECT_EQ(result.status, fault.status);
    EXPECT_THAT(result.err, HasSubstr("tandem: "));
    EXPECT_THAT(result.err, HasSubstr(fault.message));
    EXPECT_EQ(result.out, "");
  }
}

TEST(Command, AnAllocationBeyondTheMachineIsAnError) {
  const ProgramResult result = run_program({"verify", kModel, "--rows-per-step-max", "70000"});
  EXPECT_EQ(result.status, 1);
  EXPECT_THAT(result.err, HasSubstr("(--rows-per-step-max)"));
}

TEST(Command, VerifyTellsItsVerdictByStatus) {
  const ProgramResult result = run_program({"verify", kModel, "--kv-dtype", "f32", "--layout", "2A1F"});
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("passed on cpu, 2A1F"));
}

TEST(Command, HelpNamesTheBackendsThatKeepFp8) {
  EXPECT_THAT(run_program({"verify", "--help"}).out, HasSubstr("fp8 (cuda, reference)"));
  const ProgramResult result = run_program({"verify", kModel, "--device", "reference", "--kv-dtype", "fp8"});
  EXPECT_THAT(result.out, HasSubstr("on reference, 1A1F"));  // the verdict, whatever it is: it ran
}

}  // namespace
}  // namespace tandem
