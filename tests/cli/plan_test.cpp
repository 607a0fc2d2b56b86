// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The commands below "plan", as a user runs them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "base/json.h"
#include "cli/plan_options.h"
#include "tests/base/error_of.h"
#include "tests/checkpoint/temporary_folder.h"
#include "tests/cli/program.h"

namespace tandem {
namespace {

using testing::HasSubstr;

TEST(ParseTokens, TakesUnits) {
  EXPECT_EQ(parse_tokens("8192", "--context"), 8192);
  EXPECT_EQ(parse_tokens("8K", "--context"), 8192);
  EXPECT_EQ(parse_tokens("128k", "--context"), 131072);
  EXPECT_EQ(parse_tokens("1M", "--context"), 1 << 20);
  for (const char* bad : {"", "K", "0", "-1", "8KB", "8G", "1.5K", "99999999999999999999", "1048577K"})
    EXPECT_EQ(
        error_of([&] { parse_tokens(bad, "--context"); }).message(),
        "--context: '" + std::string(bad) + "' is no number of tokens between 1 and 1073741824, such as 8192 or 8K");
}

TEST(PlanCost, ShowsThePapersTablesUnasked) {
  const ProgramResult result = run_program({"plan", "cost"});
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("Pangu Pro"));
  EXPECT_THAT(result.out, HasSubstr("Step-3         8192 AFD       .055 with attention on H20 and FFN on H800\n"));
}

TEST(PlanCost, TakesModelsOfAnyKind) {
  const ProgramResult result = run_program({"plan", "cost", "--model", "tests/goldens/qwen3_moe,step3", "--hardware",
                                            "l20", "--context", "4K", "--format", "json"});
  ASSERT_EQ(result.status, 0) << result.err;
  const Json line = parse_json(result.out.substr(0, result.out.find('\n')), "line");
  EXPECT_EQ(line["model"].get<std::string>(), "qwen3_moe");
  EXPECT_EQ(line["hardware"].get<std::string>(), "L20");
  EXPECT_EQ(line["context"].get<int>(), 4096);
  EXPECT_GT(line["ffn_usd"].get<double>(), 0);
}

TEST(PlanCost, WritesAFile) {
  const TemporaryFolder folder;
  const std::string path = folder.path("cost.svg");
  ASSERT_EQ(run_program({"plan", "cost", "--format", "svg", "-o", path}).status, 0);
  std::ifstream file(path);
  std::string first;
  std::getline(file, first);
  EXPECT_TRUE(first.starts_with("<svg")) << first;
  const ProgramResult refused = run_program({"plan", "cost", "-o", folder.path("none/cost.txt")});
  EXPECT_EQ(refused.status, 1);
  EXPECT_THAT(refused.err, HasSubstr("none/cost.txt: cannot be written"));
}

TEST(PlanCost, SaysWhatItDoesNotKnow) {
  const ProgramResult model = run_program({"plan", "cost", "--model", "step33"});
  EXPECT_EQ(model.status, 1);
  EXPECT_THAT(model.err, HasSubstr("model 'step33' is not known; did you mean step3?"));
  EXPECT_THAT(run_program({"plan", "cost", "--context", "8X"}).err, HasSubstr("--context: '8X'"));
  EXPECT_EQ(run_program({"plan", "cost", "--format", "pdf"}).status, 2);
  EXPECT_EQ(run_program({"plan"}).status, 2);
}

}  // namespace
}  // namespace tandem
