// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "plan/deployment_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/json.h"
#include "tests/plan/stage_rows.h"

namespace tandem {
namespace {

using testing::HasSubstr;

DecodeModel usual_model() {
  return DecodeModel(
      find_shape("step3"),
      {.context = 8192, .precision = {}, .attention = find_hardware("h20"), .ffn = find_hardware("h800")});
}

TEST(DeploymentText, ShowsChoiceStagesAndAlternatives) {
  const DecodeModel model = usual_model();
  const DeploymentAnswer answer = answer_deployment(model, {});
  ASSERT_TRUE(answer.result.best);
  const std::string text = deployment_text(model, answer, {"a note"});
  for (const char* part : {"model      Step-3, context 8192", "(ideal: nothing real reaches it)\n           a note\n",
                           "plan       ", "limit      ", "routed        56", "dense          5", "head       ",
                           "memory     ", "link       ", "\ncontext ", "\n32768 "})
    EXPECT_THAT(text, HasSubstr(part));
}

TEST(DeploymentText, OfMeasuredStagesHasNoEfficiencyOfRooflines) {
  DecodeSettings s{.context = 4096, .precision = {}, .attention = find_hardware("h200"), .ffn = find_hardware("h200")};
  s.attention_ladders = s.ffn_ladders = std::make_shared<const StageLadders>(stage_rows(), "k.jsonl");
  const DecodeModel model(find_shape("step3"), s);
  const DeploymentAnswer answer = answer_deployment(model, {});
  ASSERT_TRUE(answer.result.best);
  const std::string text = deployment_text(model, answer, {});
  EXPECT_THAT(text, HasSubstr("\nefficiency network 1.00\n"));
  EXPECT_THAT(text, HasSubstr("\nalone      A "));
  EXPECT_THAT(text, HasSubstr("\nwaiting    "));
  s.attention_ladders = nullptr;
  const DecodeModel half(find_shape("step3"), s);
  EXPECT_THAT(deployment_text(half, answer_deployment(half, {}), {}),
              HasSubstr("\nefficiency attention 1.00, projections 1.00, network 1.00\n"));
}

// A grows with the context, F stays.
TEST(AnswerDeployment, AsksForOtherContextsWithTheSameFfn) {
  const DeploymentAnswer answer = answer_deployment(usual_model(), {});
  ASSERT_EQ(answer.contexts.size(), 5u);
  EXPECT_EQ(answer.contexts[0].context, 2048);
  EXPECT_EQ(answer.contexts[4].context, 32768);
  for (const ContextAnswer& a : answer.contexts) {
    ASSERT_TRUE(a.result.best) << a.context;
    EXPECT_EQ(a.result.best->candidate.ffn_servers, answer.result.best->candidate.ffn_servers);
  }
  EXPECT_GT(answer.contexts[4].result.best->candidate.attention_servers,
            answer.contexts[0].result.best->candidate.attention_servers);
}

TEST(DeploymentJson, IsOneObject) {
  const DecodeModel model = usual_model();
  const DeploymentAnswer answer = answer_deployment(model, {});
  const Json json = parse_json(deployment_json(model, answer), "answer");
  EXPECT_EQ(json["plan"]["layout"].get<std::string>(), layout_text(answer.result.best->candidate));
  EXPECT_EQ(json["stages"].size(), 2u);
  EXPECT_EQ(json["pareto"].size(), answer.pareto.size());
  EXPECT_EQ(json["contexts"].size(), 5u);
  EXPECT_LE(json["plan"]["tpot_ms"].get<double>(), 50);
}

TEST(DeploymentReport, OfNoPlanSaysWhy) {
  const DecodeModel model = usual_model();
  DeploymentGoal goal;
  goal.tpot = 0.001;
  const DeploymentAnswer answer = answer_deployment(model, goal);
  EXPECT_THAT(deployment_text(model, answer), HasSubstr("no plan    time per token: 1.00 ms is asked for"));
  const Json json = parse_json(deployment_json(model, answer), "answer");
  EXPECT_TRUE(json["plan"].is_null());
  EXPECT_TRUE(json["infeasible"]["nearest"].get<std::string>().starts_with("--tpot-ms "));
}

}  // namespace
}  // namespace tandem
