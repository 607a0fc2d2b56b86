// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/sampling/sample_orders.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "base/rng.h"

namespace tandem::cuda {
namespace {

constexpr std::int32_t kVocab = 100;

struct Written {
  std::vector<SampleOrder> orders;
  std::vector<std::uint32_t> words;
  std::size_t logprobs;

  std::vector<std::uint32_t> list(const SampleList& list, std::size_t words_each = 1) const {
    return {words.begin() + list.begin, words.begin() + list.begin + static_cast<long>(list.count * words_each)};
  }
};

Written written(const std::vector<SampleRow>& rows, std::int32_t work_rows = 64) {
  const SampleNeeds needs = needs_of(rows, kVocab);
  Written w{std::vector<SampleOrder>(rows.size()), std::vector<std::uint32_t>(needs.words), needs.logprobs};
  write_orders(rows, kVocab, work_rows, w.orders, w.words);
  return w;
}

TEST(SampleOrders, GreedyRowsAskForNothing) {
  const SamplingParams greedy{.top_k = 5, .top_p = .5f, .seed = 3};  // filters of a draw that is none
  const std::vector<std::int32_t> prompt = {1, 2, 3};
  const SampleRow row{&greedy, prompt, {}, 7};
  EXPECT_TRUE(is_plain(row));
  const Written w = written({row});
  EXPECT_TRUE(w.words.empty());
  EXPECT_EQ(w.orders[0].edited, -1);
  EXPECT_EQ(w.orders[0].temperature, 0);
}

TEST(SampleOrders, ListsAreThoseThatAreLookedAt) {
  const std::vector<std::int32_t> prompt = {1, 2, 3}, answer = {4, 4};
  const std::vector<std::uint32_t> allowed = {9, 8, 7, 6, 5, 4};  // two words more than there are tokens for
  const SamplingParams drawn{.temperature = 1, .seed = 11};
  const SamplingParams repetition{.repetition_penalty = 1.5f};
  const SamplingParams presence{.presence_penalty = .5f};
  const Written w = written({{&drawn, prompt, answer, 5},
                             {&repetition, prompt, answer, 5},
                             {&presence, prompt, answer, 5},
                             {&drawn, prompt, answer, 5, allowed}});
  EXPECT_EQ(w.words.size(), 5u + 2 + 4);
  EXPECT_EQ(w.orders[0].uniform, random_at(11, 5));
  EXPECT_EQ(w.orders[0].edited, -1);
  EXPECT_EQ(w.list(w.orders[1].prompt), (std::vector<std::uint32_t>{1, 2, 3}));
  EXPECT_EQ(w.list(w.orders[1].answer), (std::vector<std::uint32_t>{4, 4}));
  EXPECT_EQ(w.orders[1].edited, 0);
  EXPECT_EQ(w.orders[2].prompt.count, 0u);
  EXPECT_EQ(w.list(w.orders[2].answer), (std::vector<std::uint32_t>{4, 4}));
  EXPECT_EQ(w.orders[2].edited, 1);
  EXPECT_EQ(w.list(w.orders[3].allowed), (std::vector<std::uint32_t>{9, 8, 7, 6}));
  EXPECT_EQ(w.orders[3].masked, 1);
  EXPECT_EQ(w.orders[0].masked, 0);
}

TEST(SampleOrders, BiasesStandById) {
  const SamplingParams params{.logit_bias = {{70, 1.f}, {5, 2.f}, {100, 9.f}, {-1, 9.f}, {70, 3.f}}};
  const Written w = written({{&params, {}, {}, 0}});
  EXPECT_EQ(w.orders[0].bias.count, 3u);
  const auto bits = [](float value) { return std::bit_cast<std::uint32_t>(value); };
  EXPECT_EQ(w.list(w.orders[0].bias, 2), (std::vector<std::uint32_t>{5, bits(2), 70, bits(1), 70, bits(3)}));
}

TEST(SampleOrders, LogprobsFollowEachOther) {
  const SamplingParams none, three{.logprobs = 3}, chosen{.logprobs = 0};
  const Written w = written({{&three, {}, {}, 0}, {&none, {}, {}, 0}, {&chosen, {}, {}, 0}, {&three, {}, {}, 0}});
  EXPECT_EQ(w.logprobs, 4u + 1 + 4);
  EXPECT_EQ(w.orders[0].first_logprob, 0u);
  EXPECT_EQ(w.orders[1].logprobs, -1);
  EXPECT_EQ(w.orders[2].first_logprob, 4u);
  EXPECT_EQ(w.orders[3].first_logprob, 5u);
}

TEST(SampleOrders, SaysWhatGoesByTheDefinition) {
  const auto why = [](const SamplingParams& params) -> std::string {
    const char* reason = why_by_definition({&params, {}, {}, 0}, 64);
    return reason ? reason : "";
  };
  EXPECT_EQ(why({.temperature = 2, .top_k = -3, .top_p = 2, .min_p = 1, .logprobs = kLogprobsMax}), "");
  EXPECT_EQ(why({.logprobs = kLogprobsMax + 1}), "more log-probabilities than the kernel tells");
  EXPECT_EQ(why({.temperature = NAN}), "a parameter out of range");
  EXPECT_EQ(why({.min_p = 1.5f}), "a parameter out of range");
  EXPECT_EQ(why({.repetition_penalty = 0}), "a parameter out of range");
  EXPECT_EQ(why({.logit_bias = {{1, INFINITY}}}), "a bias that is not finite");
  const SamplingParams penalty{.presence_penalty = 1};
  EXPECT_STREQ(why_by_definition({&penalty, {}, {}, 0}, 0), "a vocabulary too large to be edited");
  const Written w = written({{&penalty, {}, {}, 0}}, 0);
  EXPECT_EQ(w.orders[0].edited, -1);
}

TEST(SampleOrders, ALaunchWantsNoWorkRowTwice) {
  const SamplingParams plain{.temperature = 1}, edited{.presence_penalty = 1};
  std::vector<SampleRow> rows;
  for (const SamplingParams* params : {&plain, &edited, &edited, &plain, &edited, &plain, &edited, &edited})
    rows.push_back({params, {}, {}, 0});
  const Written w = written(rows, 2);
  std::vector<std::size_t> ends;
  for (std::size_t begin = 0; begin < rows.size(); begin = ends.back()) {
    ends.push_back(launch_end(w.orders, begin, 2));
    std::vector<int> taken(2);
    for (std::size_t i = begin; i < ends.back(); ++i)
      if (w.orders[i].edited >= 0) ++taken[static_cast<std::size_t>(w.orders[i].edited)];
    EXPECT_LE(*std::ranges::max_element(taken), 1);
  }
  EXPECT_EQ(ends, (std::vector<std::size_t>{4, 7, 8}));
}

}  // namespace
}  // namespace tandem::cuda
