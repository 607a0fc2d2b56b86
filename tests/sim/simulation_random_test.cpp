// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Thousands of small random deployments. Whatever the layout, the losses and the lack of room: an answer that ends well
// is the one its request gets when alone, one that does not is the start of it, nobody is lost and nothing leaks.
// A failure prints the seed, also when an assertion of the core ends the program.

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <csignal>
#include <map>
#include <string>

#include "base/format.h"
#include "tests/sim/random_simulation.h"

namespace tandem {
namespace {

constexpr std::uint64_t kSeeds = 3000;

// While it lives, an abort tells which seed was under way.
class SeedOnAbort {
 public:
  SeedOnAbort() : before_(std::signal(SIGABRT, print)) {}
  ~SeedOnAbort() { std::signal(SIGABRT, before_); }
  void set(std::uint64_t seed) { *std::to_chars(text_ + kBegin, text_ + sizeof text_ - 1, seed).ptr = '\n'; }

 private:
  static void print(int) {
    const std::size_t size = std::find(text_, text_ + sizeof text_ - 1, '\n') - text_ + 1;
    [[maybe_unused]] const auto written = write(STDERR_FILENO, text_, size);
  }
  static constexpr std::size_t kBegin = 5;
  static inline char text_[40] = "seed ";
  void (*before_)(int);
};

void check(const SimulatedRequest& simulated, const SchedulerConfig& config) {
  const RequestEvent& end = simulated.end;
  if (!simulated.refusal) {
    EXPECT_EQ(end.finish, FinishReason::kNone);
    EXPECT_TRUE(simulated.answer.empty());
    return;
  }
  const auto alone = HashModel::answer_alone(simulated.request, config.context_tokens_max, config.vocab);
  ASSERT_LE(simulated.answer.size(), alone.size());
  EXPECT_TRUE(std::equal(simulated.answer.begin(), simulated.answer.end(), alone.begin()));
  const auto& stops = simulated.request.stop_ids;
  switch (end.finish) {
    case FinishReason::kStop:
    case FinishReason::kLength:
      EXPECT_EQ(simulated.answer.size(), alone.size());
      EXPECT_EQ(end.finish == FinishReason::kStop, std::ranges::find(stops, alone.back()) != stops.end());
      EXPECT_GE(simulated.first_token, simulated.request.arrival);
      break;
    case FinishReason::kError:
      EXPECT_FALSE(end.status);
      break;
    default:
      EXPECT_EQ(end.finish, FinishReason::kCancelled) << "a request was lost";
  }
  EXPECT_GE(simulated.ended, simulated.request.arrival);
}

void check(const Simulation& simulation, const SimulationConfig& config) {
  const SimulationResult& result = simulation.result();
  std::int64_t tokens = 0, errors = 0;
  for (const auto& [id, simulated] : result.requests) {
    SCOPED_TRACE(format("request {}", id));
    check(simulated, config.scheduler);
    tokens += std::ssize(simulated.answer);
    errors += simulated.end.finish == FinishReason::kError;
  }
  EXPECT_EQ(result.tokens, tokens);
  if (config.costs.loss_probability == 0 || config.layout.local()) {
    EXPECT_EQ(errors, 0);
  }
  EXPECT_TRUE(errors == 0 || result.micro_batches_failed > 0);
  Nanoseconds time = 0;
  for (const SimulatedStep& step : result.steps) {
    EXPECT_GE(step.timing.begin, time);
    time = step.timing.end;
    for (const Nanoseconds busy : step.timing.busy) EXPECT_LE(busy, step.timing.duration());
  }
  for (std::int32_t a = 0; a < config.layout.attention_workers; ++a) EXPECT_EQ(simulation.load(a).kv.held, 0);
}

void count(const SimulationResult& result, std::map<std::string, std::int64_t>& tally) {
  tally["failed micro-batches"] += result.micro_batches_failed;
  tally["lost frames"] += result.frames_lost;
  tally["preemptions"] += result.preemptions;
  tally["accepted drafts"] += result.drafts_accepted;
  tally["steps"] += std::ssize(result.steps);
  for (const auto& [id, simulated] : result.requests) {
    if (!simulated.refusal) ++tally["refused"];
    ++tally[std::string(name(simulated.end.finish))];
    tally["cached tokens"] += simulated.end.cached_tokens;
  }
}

TEST(SimulationRandom, AnswersDoNotDependOnTheDeployment) {
  SeedOnAbort on_abort;
  std::map<std::string, std::int64_t> tally;
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    SCOPED_TRACE(format("seed {}", seed));
    on_abort.set(seed);
    const SimulationConfig config = random_config(seed);
    const auto simulation = random_simulation(config);
    ASSERT_TRUE(simulation->run(20'000)) << "requests do not end";
    check(*simulation, config);
    if (HasFailure()) return;
    count(simulation->result(), tally);
  }
  for (const char* what : {"failed micro-batches", "lost frames", "preemptions", "accepted drafts", "refused", "stop",
                           "length", "cancelled", "error", "cached tokens"})
    EXPECT_GT(tally[what], 100) << what;  // the test reaches what it is for
}

TEST(SimulationRandom, TheSameSeedGivesTheSameRun) {
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    SCOPED_TRACE(format("seed {}", seed));
    const SimulationConfig config = random_config(seed);
    const auto first = random_simulation(config), second = random_simulation(config);
    ASSERT_TRUE(first->run(20'000) && second->run(20'000));
    EXPECT_FALSE(first->result().steps.empty());
    EXPECT_EQ(first->result().steps, second->result().steps);
    EXPECT_EQ(first->now(), second->now());
    for (const auto& [id, simulated] : first->result().requests) {
      const SimulatedRequest& other = second->result().requests.at(id);
      EXPECT_EQ(simulated.answer, other.answer);
      EXPECT_EQ(simulated.end.finish, other.end.finish);
      EXPECT_EQ(simulated.first_token, other.first_token);
      EXPECT_EQ(simulated.ended, other.ended);
    }
  }
}

}  // namespace
}  // namespace tandem
