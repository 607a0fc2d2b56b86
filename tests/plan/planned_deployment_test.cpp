// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "plan/planned_deployment.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "plan/deployment_report.h"
#include "tests/base/error_of.h"

namespace tandem {
namespace {

using testing::HasSubstr;

DecodeModel model_at(std::int64_t context) {
  return DecodeModel(
      find_shape("step3"),
      {.context = context, .precision = {}, .attention = find_hardware("h20"), .ffn = find_hardware("h800")});
}

Deployment planned_at(std::int64_t context) {
  const DecodeModel model = model_at(context);
  const SearchResult result = search_deployment(model, {});
  return make_deployment(model, *result.best, {"step3", "h20", "h800", context, 50}, {.checkpoint = "/models/step3"});
}

TEST(MakeDeployment, IsAFileThatHoldsTogetherAndKeepsThePlan) {
  const Deployment d = planned_at(8192);
  EXPECT_EQ(parse_deployment(to_toml(d), "written"), d);
  const DeploymentVerdict verdict = check_planned(d);
  EXPECT_THAT(verdict.faults, testing::IsEmpty());
  EXPECT_EQ(verdict.facts.size(), 3u);
  EXPECT_EQ(d.engine.kv_tokens, d.engine.sequences_max * 8192);
}

TEST(MakeDeployment, HasAWorkerForEachGpu) {
  const DecodeModel model = model_at(4096);
  const DeploymentPlan plan = plan_at(model, {2, 2, 3, 8}, 100);
  const Deployment d = make_deployment(model, plan, {"step3", "h20", "h800", 4096, 50},
                                       {.checkpoint = "m", .attention_hosts = {"a", "b"}, .ffn_hosts = {"c", "d"}});
  ASSERT_EQ(d.attention.size(), 16u);
  ASSERT_EQ(d.ffn.size(), 16u);
  EXPECT_EQ(d.name, "step-3-2a2f");
  EXPECT_EQ(d.attention[9].host, "b");
  EXPECT_EQ(d.attention[9].devices, std::vector<std::int32_t>{1});
  EXPECT_EQ(d.ffn[0].rank, 16);
  EXPECT_EQ(d.split, (FfnSplit{2, 8}));
  EXPECT_EQ(d.engine.sequences_max, 300);
  // Two groups of 24 experts, as in the paper's 2A2F.
  EXPECT_EQ(share_of(d, d.ffn[8], 48).expert_begin, 24);
  EXPECT_EQ(error_of([&] { make_deployment(model, plan, {}, {.checkpoint = "m", .ffn_hosts = {"c"}}); }).message(),
            "1 FFN hosts are named, the plan has 2 servers");
}

TEST(CheckPlanned, FindsWhatNoLongerHolds) {
  Deployment d = planned_at(8192);
  d.engine.rows_per_micro_batch_max *= 4;
  d.engine.sequences_max *= 4;
  d.engine.kv_tokens *= 4;
  const std::vector<std::string> faults = check_planned(d).faults;
  ASSERT_EQ(faults.size(), 2u);
  EXPECT_THAT(faults[0], HasSubstr("an attention worker's weights and KV of "));
  EXPECT_THAT(faults[1], HasSubstr(" ms a token on ideal hardware, planned are 50.00 ms"));
  d = planned_at(8192);
  d.ffn.pop_back();
  EXPECT_THAT(check_planned(d).faults, testing::Contains(HasSubstr("FFN workers; there are")));
  d = planned_at(8192);
  d.planned->model = "no-such-model";
  EXPECT_THAT(error_of([&] { check_planned(d); }).message(), HasSubstr("model 'no-such-model' is not known"));
  d.planned.reset();
  EXPECT_THAT(check_planned(d).facts, testing::IsEmpty());
}

}  // namespace
}  // namespace tandem
