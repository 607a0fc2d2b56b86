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

TEST(ParseTokenRange, HasItsMoments) {
  EXPECT_EQ(parse_token_range("512", "--input-tokens").mean(), 512);
  EXPECT_EQ(parse_token_range("512", "--input-tokens").mean_square(), 512.0 * 512);
  EXPECT_EQ(parse_token_range("1K:3K", "--input-tokens").mean(), 2048);
  EXPECT_EQ(error_of([] { parse_token_range("2:1", "--input-tokens"); }).message(),
            "--input-tokens: '2:1' runs downwards");
}

TEST(PlanDeploy, WritesAFileThatTheCheckLikes) {
  const TemporaryFolder folder;
  const std::string path = folder.path("fleet.toml");
  const ProgramResult plan = run_program({"plan", "deploy", "--context", "8K", "--toml", path, "--format", "json"});
  ASSERT_EQ(plan.status, 0) << plan.err;
  EXPECT_LE(parse_json(plan.out, "plan")["plan"]["tpot_ms"].get<double>(), 50);
  const ProgramResult check = run_program({"plan", "check", path});
  EXPECT_EQ(check.status, 0) << check.out << check.err;
  EXPECT_THAT(check.out, HasSubstr("good   an FFN worker's weights take "));
  std::string text;
  {
    std::ifstream file(path);
    text.assign(std::istreambuf_iterator<char>(file), {});
  }
  const std::size_t at = text.find("tpot_ms = 50");
  ASSERT_NE(at, std::string::npos);
  const std::string tight = folder.write("tight.toml", text.replace(at, 12, "tpot_ms = 10"));
  const ProgramResult refused = run_program({"plan", "check", tight});
  EXPECT_EQ(refused.status, 1);
  EXPECT_THAT(refused.out, HasSubstr("planned are 10.00 ms\n"));
}

TEST(PlanDeploy, TakesTheCheapestPairOfSeveral) {
  const ProgramResult result =
      run_program({"plan", "deploy", "--context", "32K", "--gpus-a", "h800,h20", "--gpus-f", "h800,h20"});
  ASSERT_EQ(result.status, 0) << result.err;
  for (const char* pair : {"pair       H800 and H800: ", "pair       H800 and H20: ", "pair       H20 and H800: ",
                           "pair       H20 and H20: "})
    EXPECT_THAT(result.out, HasSubstr(pair));
  EXPECT_THAT(result.out,
              testing::ContainsRegex(
                  "plan       [0-9]+A[0-9]+F: attention on [0-9]+ servers of 8 H20, FFN on [0-9]+ of 8 H800"));
}

TEST(PlanDeploy, ALoadGivesTheContext) {
  const ProgramResult result = run_program(
      {"plan", "deploy", "--load", "20", "--input-tokens", "1000", "--output-tokens", "500", "--format", "json"});
  ASSERT_EQ(result.status, 0) << result.err;
  const Json json = parse_json(result.out, "plan");
  EXPECT_EQ(json["context"].get<int>(), 1250);
  EXPECT_GE(json["plan"]["tokens_per_second"].get<double>(), 20 * 500);
}

TEST(PlanDeploy, SaysWhyThereIsNoPlan) {
  const ProgramResult result = run_program({"plan", "deploy", "--context", "8K", "--tpot-ms", "1"});
  EXPECT_EQ(result.status, 1);
  EXPECT_THAT(result.out, HasSubstr("no plan    time per token: 1.00 ms is asked for"));
  EXPECT_THAT(result.out, HasSubstr("\nnearest    --tpot-ms "));
  EXPECT_THAT(run_program({"plan", "deploy", "--tpot-ms", "-5"}).err, HasSubstr("time per token is -5 ms"));
  EXPECT_THAT(run_program({"plan", "deploy", "--gpus-a", "h2000"}).err, HasSubstr("hardware 'h2000' is not known"));
}

TEST(PlanSparsity, ShowsThePapersBound) {
  const ProgramResult result = run_program({"plan", "sparsity", "--hardware", "h800"});
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("0.082     0.058      3620  keeps up\n"));
}

TEST(PlanCheck, SaysWhatIsWrongWithAFile) {
  const TemporaryFolder folder;
  const ProgramResult result = run_program({"plan", "check", folder.write("x.toml", "version = 1\nnmae = \"x\"\n")});
  EXPECT_EQ(result.status, 1);
  EXPECT_THAT(result.err, HasSubstr("x.toml: name is missing"));
}

// What the processes of a deployment refuse the check does not like either.
TEST(PlanCheck, AgreesWithTheProcesses) {
  const TemporaryFolder folder;
  const std::string by_width = R"(version = 1
name = "d"
model = "tests/goldens/qwen3_moe"
[engine]
device = "cpu"
[split]
experts = 1
width = 2
[[attention]]
rank = 0
host = "127.0.0.1"
port = 7000
[[ffn]]
rank = 1
host = "127.0.0.1"
port = 7001
[[ffn]]
rank = 2
host = "127.0.0.1"
port = 7002
)";
  EXPECT_EQ(run_program({"plan", "check", folder.write("by_width.toml", by_width)}).status, 0);
  const ProgramResult result =
      run_program({"plan", "check", folder.write("inproc.toml", by_width + "[link]\ntransport = \"inproc\"\n")});
  EXPECT_EQ(result.status, 1);
  EXPECT_THAT(result.out, HasSubstr("wrong  deployment d: link.transport is inproc"));
}

// The machine at hand: measured, with what cannot be measured said.
TEST(PlanCost, KnowsThisMachine) {
  const ProgramResult result =
      run_program({"plan", "cost", "--model", "step3", "--hardware", "this", "--context", "1K", "--format", "json"});
  ASSERT_EQ(result.status, 0) << result.err;
  EXPECT_GT(parse_json(result.out, "line")["ffn_usd"].get<double>(), 0);
  EXPECT_THAT(result.err, HasSubstr("its price is taken as 1 USD/h"));
}

}  // namespace
}  // namespace tandem
