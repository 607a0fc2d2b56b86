// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The program with a real model. TANDEM_SMOLLM2 names its file (./dev test fetches it).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "base/format.h"
#include "base/json.h"
#include "tests/cli/program.h"

namespace tandem {
namespace {

using testing::HasSubstr;

class SmolLM2Program : public testing::Test {
 protected:
  void SetUp() override {
    const char* path = std::getenv("TANDEM_SMOLLM2");
    if (!path) GTEST_SKIP() << "TANDEM_SMOLLM2 does not name the model file";
    model_ = path;
  }
  std::string model_;
};

TEST_F(SmolLM2Program, AnswersSensibly) {
  for (const char* layout : {"local", "1A1F", "2A2F"}) {
    const ProgramResult result =
        run_program({"chat", "--model", model_, "--layout", layout, "--context-tokens-max", "1024"},
                    "What is the capital of France?\n");
    EXPECT_EQ(result.status, 0) << result.err;
    EXPECT_THAT(result.out, HasSubstr("Paris")) << layout;
    EXPECT_THAT(result.err, HasSubstr(format("layout    {}", layout)));
  }
}

TEST_F(SmolLM2Program, AConversationAtATerminal) {
  const ProgramResult result = run_at_terminal({"chat", "--model", model_, "--context-tokens-max", "1024"},
                                               {{"> ", "What is the capital of France?\r"},
                                                {"Paris", "/stats\r"},
                                                {"MiB resident", "Tell me a very long story about a dragon.\r"},
                                                {"dragon.\r\n", "\x03"},
                                                {"(stopped)", "/quit\r"}});
  EXPECT_EQ(result.status, 0) << result.out;
  EXPECT_THAT(result.out, HasSubstr("first after"));
}

TEST_F(SmolLM2Program, InspectKnowsItsSize) {
  const Json json = parse_json(run_program({"inspect", model_, "--json"}).out, "output");
  EXPECT_EQ(json["supported"], true);
  EXPECT_NEAR(json["parameters"].get<double>(), 134.5e6, 0.1e6);
  EXPECT_EQ(json["kv_token_bytes"]["bf16"], 30 * 2 * 3 * 64 * 2);
}

}  // namespace
}  // namespace tandem
