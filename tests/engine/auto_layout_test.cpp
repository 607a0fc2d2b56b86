// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "engine/auto_layout.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"

namespace tandem {
namespace {

TEST(AutoLayout, CandidatesHaveAtMostOneWorkerPerCore) {
  EXPECT_EQ(candidate_layouts(1), std::vector<Layout>{Layout{}});
  EXPECT_EQ(candidate_layouts(2), (std::vector<Layout>{{}, {1, 1}}));
  EXPECT_EQ(candidate_layouts(3), (std::vector<Layout>{{}, {1, 1}, {2, 1}, {1, 2}}));
  EXPECT_EQ(candidate_layouts(64).back(), (Layout{2, 2}));
}

TEST(AutoLayout, TakesTheFastestOfThoseItTried) {
  const auto checkpoint = Checkpoint::open("tests/goldens/step3_text_bf16");
  EngineConfig config;
  config.checked = true;
  const std::vector<Layout> candidates{{}, {1, 1}, {2, 2}};
  std::vector<Layout> heard;
  const LayoutChoice choice =
      choose_layout(*checkpoint, config, candidates, [&](const LayoutTrial& trial) { heard.push_back(trial.layout); });
  EXPECT_EQ(heard, candidates);
  ASSERT_EQ(choice.trials.size(), candidates.size());
  double least = choice.trials.front().seconds, chosen = 0;
  for (const LayoutTrial& trial : choice.trials) {
    EXPECT_GT(trial.prefill_tokens_per_second, 0);
    EXPECT_GT(trial.decode_tokens_per_second, 0);
    least = std::min(least, trial.seconds);
    if (trial.layout == choice.layout) chosen = trial.seconds;
  }
  EXPECT_EQ(chosen, least);
}

TEST(AutoLayout, NothingToChooseFromIsAnError) {
  const auto checkpoint = Checkpoint::open("tests/goldens/llama");
  EXPECT_THROW(choose_layout(*checkpoint, {}, {}), Error);
}

}  // namespace
}  // namespace tandem
