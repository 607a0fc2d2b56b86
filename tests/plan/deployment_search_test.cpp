// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "plan/deployment_search.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/format.h"
#include "base/rng.h"
#include "plan/measured.h"
#include "plan/plan_file.h"
#include "tests/base/error_of.h"
#include "tests/plan/stage_rows.h"

namespace tandem {
namespace {

using testing::HasSubstr;

struct Question {
  std::string model;
  DecodeSettings settings;
  DeploymentGoal goal;
};

Question usual() {
  Question q{
      .model = "step3",
      .settings = {.context = 8192, .precision = {}, .attention = find_hardware("h20"), .ffn = find_hardware("h800")},
      .goal = {}};
  q.goal.limits.attention_servers_max = 12;
  q.goal.limits.ffn_servers_max = 6;
  return q;
}

SearchResult ask(const Question& q) {
  return search_deployment(DecodeModel(find_shape(q.model), q.settings), q.goal);
}

TEST(SearchDeployment, FindsWhatTryingEverythingFinds) {
  const Question q = usual();
  const DecodeModel model(find_shape(q.model), q.settings);
  const SearchResult found = ask(q);
  ASSERT_TRUE(found.best);
  EXPECT_EQ(found.candidates, 12 * 6 * 3 * 4);
  EXPECT_LE(found.best->tpot, q.goal.tpot);
  double least = 1e300;
  Candidate c;
  for (c.attention_servers = 1; c.attention_servers <= 12; ++c.attention_servers)
    for (c.ffn_servers = 1; c.ffn_servers <= 6; ++c.ffn_servers)
      for (c.micro_batches = 2; c.micro_batches <= 4; ++c.micro_batches)
        for (c.tensor_parallel = 1; c.tensor_parallel <= 8; c.tensor_parallel *= 2)
          for (std::int64_t rows = 1; rows <= 200; ++rows)
            if (model.fits_model(c) && model.ffn_weight_bytes(c) <= model.usable_bytes(q.settings.ffn) &&
                static_cast<double>(rows * c.micro_batches) <= model.sequences_max() &&
                model.tpot(c, static_cast<double>(rows)) <= q.goal.tpot)
              least = std::min(least, model.usd_per_million(c, static_cast<double>(rows)));
  EXPECT_NEAR(found.best->usd_per_million, least, 1e-12);
}

// The plan of the better question costs no more than most times that of q, if q has one, which is counted then.
void expect_no_dearer(const Question& q, const Question& better, double most, int& compared) {
  const SearchResult before = ask(q), after = ask(better);
  if (!before.best) return;
  ++compared;
  ASSERT_TRUE(after.best) << "leaves no plan: " << after.infeasible.reason;
  const bool by_hour = q.goal.tokens_per_second > 0;
  const double old_price = by_hour ? before.best->usd_per_hour : before.best->usd_per_million;
  const double new_price = by_hour ? after.best->usd_per_hour : after.best->usd_per_million;
  EXPECT_LE(new_price, old_price * most) << "makes it dearer";
}

// Better conditions never make a plan worse. Each seed draws a question and improves it in one way.
TEST(SearchDeployment, NothingBetterMakesAPlanWorse) {
  const std::vector<std::string> hardware{"h800", "h20", "a800", "910b", "h100", "h200", "a100", "l20"};
  const std::vector<std::string> models{"step3", "deepseek_v3", "qwen3_235b", "pangu_pro", "qwen3_32b"};
  int compared = 0;
  for (std::uint64_t seed = 1; seed <= 400; ++seed) {
    Rng rng(seed);
    const auto draw = [&](double low, double high) { return low + (high - low) * rng.uniform(); };
    const auto pick = [&](const std::vector<std::string>& list) {
      return list[std::min(list.size() - 1, static_cast<std::size_t>(draw(0, static_cast<double>(list.size()))))];
    };
    Question q = usual();
    q.model = pick(models);
    q.settings.attention = find_hardware(pick(hardware));
    q.settings.ffn = find_hardware(pick(hardware));
    q.settings.context = static_cast<std::int64_t>(draw(256, 40000));
    q.settings.efficiency = {draw(0.3, 1), draw(0.3, 1), draw(0.3, 1), draw(0.3, 1)};
    q.goal.tpot = draw(0.01, 0.2);
    q.goal.limits.attention_servers_max = 6;
    q.goal.limits.ffn_servers_max = 5;
    if (seed % 3 == 0) q.goal.tokens_per_second = draw(100, 50000);
    Question better = q;
    const double more = draw(1.01, 3);
    const std::vector<std::pair<const char*, std::function<void()>>> ways{
        {"more bandwidth of attention", [&] { better.settings.attention.memory_bandwidth *= more; }},
        {"more bandwidth of the FFN", [&] { better.settings.ffn.memory_bandwidth *= more; }},
        {"more FLOPs of attention",
         [&] { better.settings.attention.bf16_flops *= more, better.settings.attention.fp8_flops *= more; }},
        {"more FLOPs of the FFN",
         [&] { better.settings.ffn.bf16_flops *= more, better.settings.ffn.fp8_flops *= more; }},
        {"more network",
         [&] { better.settings.attention.network_bandwidth *= more, better.settings.ffn.network_bandwidth *= more; }},
        {"more memory", [&] { better.settings.attention.memory_bytes *= more; }},
        {"cheaper attention", [&] { better.settings.attention.usd_per_hour /= more; }},
        {"cheaper FFN", [&] { better.settings.ffn.usd_per_hour /= more; }},
        {"shorter context",
         [&] { better.settings.context = static_cast<std::int64_t>(static_cast<double>(q.settings.context) / more); }},
        {"looser time", [&] { better.goal.tpot *= more; }},
        {"less load", [&] { better.goal.tokens_per_second /= more; }},
        {"better efficiency", [&] { better.settings.efficiency = {}; }},
        {"more servers", [&] { better.goal.limits.attention_servers_max += 2; }}};
    const auto& [what, improve] = ways[seed % ways.size()];
    improve();
    SCOPED_TRACE(format("seed {}: {}", seed, what));
    ASSERT_NO_FATAL_FAILURE(expect_no_dearer(q, better, 1 + 1e-12, compared));
  }
  EXPECT_GT(compared, 150);
}

Question measured() {
  Question q = usual();
  q.settings.context = 4096;
  q.settings.attention = q.settings.ffn = find_hardware("h200");
  q.settings.attention.network_bandwidth = q.settings.ffn.network_bandwidth = 4.5e11;
  q.goal.limits.attention_servers_max = q.goal.limits.ffn_servers_max = 3;
  return q;
}

Question recorded() {
  static constexpr const char* kRecorded = "tests/plan/h200_stages.jsonl";
  static const std::shared_ptr<const StageLadders> ladders =
      measured_stages(parse_kernel_measurements(read_plan_file(kRecorded), kRecorded), find_shape("step3"),
                      DType::kF8E4M3, kRecorded)
          .ladders;
  Question q = measured();
  q.settings.precision.kv = DType::kF8E4M3;
  q.settings.attention_ladders = q.settings.ffn_ladders = ladders;
  return q;
}

TEST(SearchDeployment, NoMeasuredBatchIsCheaperThanWhatItFinds) {
  for (const double tpot : {0.04, 0.05, 0.07}) {
    Question q = recorded();
    q.goal.tpot = tpot;
    const DecodeModel model(find_shape(q.model), q.settings);
    const SearchResult found = ask(q);
    ASSERT_TRUE(found.best);
    EXPECT_LE(found.best->tpot, tpot);
    EXPECT_EQ(found.best->tpot, model.tpot(found.best->candidate, static_cast<double>(found.best->rows)));
    Candidate c{.tensor_parallel = 1};
    for (c.attention_servers = 1; c.attention_servers <= 3; ++c.attention_servers)
      for (c.ffn_servers = 1; c.ffn_servers <= 3; ++c.ffn_servers)
        for (c.micro_batches = 2; c.micro_batches <= 4; ++c.micro_batches)
          for (const double rows : model.measured_rows(c))
            if (rows >= 1 && rows * c.micro_batches <= model.sequences_max() && model.tpot(c, rows) <= tpot) {
              EXPECT_LE(found.best->usd_per_million, model.usd_per_million(c, rows) * (1 + 1e-12))
                  << c.attention_servers << "A" << c.ffn_servers << "F " << c.micro_batches << " x " << rows;
            }
  }
}

// Where times rise in steps, a smaller batch may carry a load that the largest one in time does not.
TEST(SearchDeployment, ALoadIsCarriedByWhicheverBatchCarriesIt) {
  int seen = 0;
  for (int milliseconds = 30; milliseconds < 60; ++milliseconds) {
    Question q = recorded();
    q.goal.tpot = milliseconds * 1e-3;
    q.goal.limits.attention_servers_min = q.goal.limits.attention_servers_max = 2;
    q.goal.limits.ffn_servers_min = q.goal.limits.ffn_servers_max = 2;
    const SearchResult free = ask(q);
    if (!free.best) continue;
    q.goal.tokens_per_second = free.best->tokens_per_second;
    const SearchResult loaded = ask(q);
    ASSERT_TRUE(loaded.best) << milliseconds << " ms: " << loaded.infeasible.reason;
    EXPECT_GE(loaded.best->tokens_per_second, q.goal.tokens_per_second);
    ++seen;
  }
  EXPECT_GT(seen, 10);
}

// The same of recorded stages, whose steps are simulated: what comes sooner there may meet somebody that it would have
// missed, which was seen to cost up to 0.02 %.
TEST(SearchDeployment, NothingBetterMakesAMeasuredPlanWorse) {
  int compared = 0;
  for (std::uint64_t seed = 1; seed <= 80; ++seed) {
    Rng rng(seed);
    const auto draw = [&](double low, double high) { return low + (high - low) * rng.uniform(); };
    Question q = recorded();
    q.settings.context = static_cast<std::int64_t>(draw(1024, 40000));
    q.goal.limits.attention_servers_max = 1 + static_cast<std::int32_t>(rng.below(16));
    q.goal.tpot = draw(0.03, 0.08);
    if (seed % 3 == 0) q.goal.tokens_per_second = draw(1000, 50000);
    Question better = q;
    const double more = draw(1.01, 2);
    const std::vector<std::pair<const char*, std::function<void()>>> ways{
        {"more network",
         [&] { better.settings.attention.network_bandwidth *= more, better.settings.ffn.network_bandwidth *= more; }},
        {"more memory", [&] { better.settings.attention.memory_bytes *= more; }},
        {"cheaper attention", [&] { better.settings.attention.usd_per_hour /= more; }},
        {"cheaper FFN", [&] { better.settings.ffn.usd_per_hour /= more; }},
        {"shorter context",
         [&] { better.settings.context = static_cast<std::int64_t>(static_cast<double>(q.settings.context) / more); }},
        {"looser time", [&] { better.goal.tpot *= more; }},
        {"less load", [&] { better.goal.tokens_per_second /= more; }},
        {"more servers", [&] { better.goal.limits.attention_servers_max += 2; }}};
    const auto& [what, improve] = ways[seed % ways.size()];
    improve();
    SCOPED_TRACE(format("seed {}: {}", seed, what));
    ASSERT_NO_FATAL_FAILURE(expect_no_dearer(q, better, 1.005, compared));
  }
  EXPECT_GT(compared, 40);
}

// Up to 128 rows a stage grows by less than they do, above them suddenly: the cheapest batch is not the largest.
TEST(SearchDeployment, WithMeasuredStagesTheCheapestBatchNeedNotBeTheLargest) {
  Question q = measured();
  std::vector<StageKernel> rows;
  for (StageKernel k : stage_rows()) {
    const bool full = k.rows == 128;
    const double factor = full || k.rows == 2048 ? 1 : 1.5;
    k.seconds *= factor;
    k.seconds_beside *= factor;
    rows.push_back(k);
    if (!full) continue;
    k.rows = 136;
    k.seconds *= 2;
    k.seconds_beside *= 2;
    rows.push_back(k);
  }
  q.settings.attention_ladders = q.settings.ffn_ladders = std::make_shared<const StageLadders>(rows, "k.jsonl");
  q.goal.limits.attention_servers_min = q.goal.limits.attention_servers_max = 2;
  const SearchResult found = ask(q);
  ASSERT_TRUE(found.best);
  EXPECT_EQ(found.best->rows, 128);
  EXPECT_EQ(found.best->candidate.ffn_servers, 2);  // as was measured
  EXPECT_EQ(found.best->limited_by, "price: as measured, a larger batch costs more per token");
  q.goal.limits.rows_min = 130;
  const SearchResult more = ask(q);
  ASSERT_TRUE(more.best);
  EXPECT_GE(more.best->rows, 130);
  EXPECT_GT(more.best->usd_per_million, found.best->usd_per_million);
}

TEST(SearchDeployment, LayoutsThatWereNotMeasuredAreNotPlanned) {
  Question q = measured();
  q.settings.ffn_ladders = std::make_shared<const StageLadders>(stage_rows(), "k.jsonl");
  q.goal.limits.ffn_servers_min = 3;
  const SearchResult none = ask(q);
  ASSERT_FALSE(none.best);
  EXPECT_EQ(none.infeasible.reason,
            "the FFN was measured with whole experts on 16 GPUs, 3 to 3 servers of 8 are asked for");
  EXPECT_EQ(none.infeasible.nearest, "as many FFN GPUs as were measured");
}

TEST(SearchDeployment, FewerRowsThanAskedForAreNoPlan) {
  Question q = usual();
  const SearchResult found = ask(q);
  ASSERT_TRUE(found.best);
  q.goal.limits.rows_min = q.goal.limits.rows_max = found.best->rows / 2;
  EXPECT_EQ(ask(q).best->rows, found.best->rows / 2);
  q.goal.limits.rows_min = 5000;
  EXPECT_THAT(error_of([&] { ask(q); }).message(), HasSubstr("rows of a micro-batch from 5000 to "));
  q.goal.limits.rows_max = 5000;
  EXPECT_FALSE(ask(q).best);
}

TEST(SearchDeployment, ALoadIsMetByTheCheapestPerHour) {
  Question q = usual();
  q.goal.tokens_per_second = 20000;
  const SearchResult some = ask(q);
  ASSERT_TRUE(some.best);
  EXPECT_GE(some.best->tokens_per_second, 20000);
  q.goal.tokens_per_second = 60000;
  const SearchResult more = ask(q);
  ASSERT_TRUE(more.best);
  EXPECT_GT(more.best->usd_per_hour, some.best->usd_per_hour);
}

TEST(SearchDeployment, SaysWhatLimitsTheBatch) {
  Question q = usual();
  q.settings.attention.memory_bytes = 30e9;
  EXPECT_THAT(ask(q).best->limited_by, HasSubstr("KV memory: "));
  q = usual();
  q.goal.tpot = 0.02;
  EXPECT_THAT(ask(q).best->limited_by, testing::StartsWith("time per token, and in it "));
  q = usual();
  q.goal.limits.rows_max = 3;
  EXPECT_EQ(ask(q).best->limited_by, "rows of a micro-batch, 3 at most");
}

TEST(SearchDeployment, AnInfeasibleGoalHasAReasonAndANearestThatHolds) {
  Question q = usual();
  q.goal.tpot = 0.002;
  SearchResult none = ask(q);
  ASSERT_FALSE(none.best);
  EXPECT_THAT(none.infeasible.reason, HasSubstr("time per token: 2.00 ms is asked for, "));
  ASSERT_TRUE(none.infeasible.nearest.starts_with("--tpot-ms ")) << none.infeasible.nearest;
  q.goal.tpot = std::stod(none.infeasible.nearest.substr(10)) * 1e-3;
  EXPECT_TRUE(ask(q).best) << none.infeasible.nearest;
  q.goal.tpot *= 0.98;
  EXPECT_FALSE(ask(q).best) << none.infeasible.nearest;

  q = usual();
  q.goal.tokens_per_second = 1e9;
  none = ask(q);
  ASSERT_FALSE(none.best);
  EXPECT_THAT(none.infeasible.reason, HasSubstr("load: 1000000000 tokens/s are asked for, "));
  q.goal.tokens_per_second = std::stod(none.infeasible.nearest);
  EXPECT_TRUE(ask(q).best) << none.infeasible.nearest;

  q = usual();
  q.settings.context = 4'000'000;
  none = ask(q);
  ASSERT_FALSE(none.best);
  EXPECT_THAT(none.infeasible.reason, HasSubstr("memory of attention: "));
  q.settings.context = std::stoll(none.infeasible.nearest.substr(8));
  q.goal.tpot = 3600;
  EXPECT_TRUE(ask(q).best) << none.infeasible.nearest;

  q = usual();
  q.settings.ffn.memory_bytes = 1e9;
  none = ask(q);
  ASSERT_FALSE(none.best);
  EXPECT_THAT(none.infeasible.reason, HasSubstr("FFN weights: "));
  EXPECT_THAT(none.infeasible.nearest, HasSubstr("FFN servers (--ffn-servers)"));

  q = usual();
  q.goal.limits.ffn_servers_min = q.goal.limits.ffn_servers_max = 49;
  none = ask(q);
  ASSERT_FALSE(none.best);
  EXPECT_THAT(none.infeasible.reason, HasSubstr("cannot be cut over 49 servers of 8 GPUs"));
}

TEST(SearchDeployment, GoalsThatMakeNoSenseAreRefused) {
  const auto error = [](auto change) {
    Question q = usual();
    change(q.goal);
    return error_of([&] { ask(q); }).message();
  };
  EXPECT_EQ(error([](DeploymentGoal& g) { g.tpot = 0; }),
            "time per token is 0 ms, has to be between 0.01 ms and an hour");
  EXPECT_EQ(error([](DeploymentGoal& g) { g.tokens_per_second = -1; }),
            "load is -1 tokens/s, has to be between 0 and 1e12");
  EXPECT_EQ(error([](DeploymentGoal& g) { g.limits.ffn_servers_max = 0; }),
            "FFN servers from 1 to 0: has to be a range between 1 and 4096");
  EXPECT_EQ(error([](DeploymentGoal& g) { g.limits.micro_batches_max = 17; }),
            "micro-batches from 2 to 17: has to be a range between 1 and 16");
  EXPECT_EQ(error([](DeploymentGoal& g) { g.limits.attention_servers_max = g.limits.ffn_servers_max = 4096; }),
            "201326592 candidate layouts, limit is 100000000");
}

TEST(Pareto, IsFasterOrCheaperLineByLine) {
  const Question q = usual();
  const DecodeModel model(find_shape(q.model), q.settings);
  const std::vector<DeploymentPlan> plans = pareto(model, q.goal, search_deployment(model, q.goal));
  ASSERT_GE(plans.size(), 3u);
  for (std::size_t i = 1; i < plans.size(); ++i) {
    EXPECT_GT(plans[i].tpot, plans[i - 1].tpot);
    EXPECT_LT(plans[i].usd_per_million, plans[i - 1].usd_per_million);
  }
}

// Attention where bytes are cheap, FFN where FLOPs are: cheaper than either alone (paper, section 4.2).
TEST(SearchDeployment, TheMixedPairIsCheaperThanEitherKind) {
  const auto price = [](const char* attention, const char* ffn) {
    Question q = usual();
    q.settings.context = 32768;
    q.settings.attention = find_hardware(attention);
    q.settings.ffn = find_hardware(ffn);
    q.goal.limits = {};
    return ask(q).best->usd_per_million;
  };
  EXPECT_LT(price("h20", "h800"), price("h800", "h800"));
  EXPECT_LT(price("h20", "h800"), price("h20", "h20"));
}

}  // namespace
}  // namespace tandem
