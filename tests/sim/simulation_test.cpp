// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Scheduler, pipeline and cache together, without a backend: thousands of small random lives of a deployment. Whatever
// layout, timing, cancellation or loss, an answer that ends well is the one its request gets alone, and nothing leaks.
// A failure prints the seed, also when an assertion of the core ends the program.
#include "sim/simulation.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <map>
#include <string>

#include "base/format.h"
#include "tests/sched/fake_model.h"

namespace tandem {
namespace {

constexpr std::int32_t kVocab = 50;

class HashModel final : public RowModel {
 public:
  explicit HashModel(std::int64_t blocks) : model_(blocks, kVocab) {}
  void zero(std::span<const std::int32_t> blocks) override { model_.zero(blocks); }
  SequenceResult run(const SequenceRows& rows) override {
    if (before_run) before_run();
    SequenceResult result = model_.run(rows);
    drafts_accepted += std::max<std::int64_t>(0, std::ssize(result.tokens) - 1);
    return result;
  }
  std::function<void()> before_run;
  std::int64_t drafts_accepted = 0;

 private:
  FakeModel model_;
};

std::vector<std::unique_ptr<RowModel>> hash_models(const SimulationConfig& config) {
  std::vector<std::unique_ptr<RowModel>> models;
  for (std::int32_t a = 0; a < config.layout.attention_workers; ++a)
    models.push_back(std::make_unique<HashModel>(config.kv.blocks));
  return models;
}

// While it lives, an abort says which seed was under way.
class SeedOnAbort {
 public:
  SeedOnAbort() : before_(std::signal(SIGABRT, print)) {}
  ~SeedOnAbort() { std::signal(SIGABRT, before_); }
  void set(std::uint64_t seed) { text_ = format("seed {}\n", seed); }

 private:
  static void print(int) { [[maybe_unused]] const auto written = write(STDERR_FILENO, text_.data(), text_.size()); }
  static inline std::string text_;
  void (*before_)(int);
};

struct Story {
  Request request;
  std::vector<std::int32_t> answer;
  FinishReason finish = FinishReason::kNone;
  Status status;
};

class RandomDeployment {
 public:
  explicit RandomDeployment(std::uint64_t seed) : rng_(seed), config_(random_config(seed)) {
    std::vector<std::unique_ptr<RowModel>> models = hash_models(config_);
    for (const std::unique_ptr<RowModel>& model : models) {
      models_.push_back(static_cast<HashModel*>(model.get()));
      models_.back()->before_run = [this] {  // a cancellation may come in the middle of a step
        if (trouble_ && below(100) == 0) cancel();
      };
    }
    simulation_ = std::make_unique<Simulation>(config_, std::move(models));
    for (std::int32_t a = 0; a < workers() && seed % 2 == 0; ++a)
      simulation_->scheduler(a).set_drafter([this](std::span<const std::int32_t> tokens) { return guess(tokens); });
  }

  void run(int steps) {
    for (int i = 0; i < steps; ++i) {
      for (std::int64_t arrivals = below(3); arrivals > 0; --arrivals) submit();
      if (below(20) == 0) cancel();
      if (below(20) == 0) simulation_->scheduler(static_cast<std::int32_t>(below(workers()))).preempt_youngest();
      step(random_losses());
      if (testing::Test::HasFailure()) return;
    }
    trouble_ = false;
    for (int i = 0; !simulation_->idle(); ++i) {
      ASSERT_LT(i, 5000) << "requests do not end";
      step({});
    }
    for (const auto& [id, story] : stories_) check(story);
    for (std::int32_t a = 0; a < workers(); ++a) EXPECT_EQ(simulation_->scheduler(a).load().kv.held, 0);
    for (std::int32_t a = 0; a < workers(); ++a) tally["preemptions"] += simulation_->scheduler(a).load().preemptions;
    for (const HashModel* model : models_) tally["accepted drafts"] += model->drafts_accepted;
  }

  std::map<std::string, std::int64_t> tally;  // how often what happened
  Nanoseconds now() const { return simulation_->now(); }
  // What everybody was told, for comparing runs.
  std::map<RequestId, std::vector<std::int32_t>> answers() const {
    std::map<RequestId, std::vector<std::int32_t>> answers;
    for (const auto& [id, story] : stories_) answers[id] = story.answer;
    return answers;
  }

 private:
  std::int64_t below(std::int64_t bound) {
    return static_cast<std::int64_t>(rng_.below(static_cast<std::uint64_t>(bound)));
  }
  std::int32_t workers() const { return config_.layout.attention_workers; }

  SimulationConfig random_config(std::uint64_t seed) {
    SimulationConfig config;
    config.layout = {static_cast<std::int32_t>(1 + below(3)), static_cast<std::int32_t>(1 + below(3))};
    if (below(5) == 0) config.layout = {};
    config.layers = static_cast<std::int32_t>(1 + below(3));
    config.kv = {.blocks = 3 + below(6), .prefix_cache = below(4) > 0};
    SchedulerConfig& s = config.scheduler;
    s = {.queue_max = 2 + below(8), .sequences_max = 1 + below(6), .vocab = kVocab};
    s.rows_per_step_max = s.sequences_max + below(60);
    s.prefill_chunk = 1 + below(s.rows_per_step_max);
    s.context_tokens_max = 20 + below(160);
    s.micro_batches = static_cast<std::int32_t>(1 + below(4));
    config.costs.jitter = static_cast<double>(below(3));
    config.seed = seed;
    return config;
  }

  void submit() {
    Request request{.id = ++ids_, .new_tokens_max = static_cast<std::int32_t>(1 + below(20))};
    request.new_tokens_max =
        std::min<std::int32_t>(request.new_tokens_max, static_cast<std::int32_t>(config_.scheduler.context_tokens_max));
    Rng stream(static_cast<std::uint64_t>(below(2)));  // prompts are starts of two streams
    request.prompt.resize(static_cast<std::size_t>(1 + below(120)));
    for (std::int32_t& token : request.prompt) token = static_cast<std::int32_t>(stream.below(kVocab));
    if (below(3) == 0) request.stop_ids = {static_cast<std::int32_t>(below(kVocab))};
    if (simulation_->submit(request))
      stories_[request.id].request = request;
    else
      ++tally["refused"];
  }

  void cancel() {
    if (ids_ > 0) simulation_->cancel(1 + static_cast<RequestId>(below(static_cast<std::int64_t>(ids_))));
  }

  // Some of the next tokens, up to the first wrong one and beyond.
  std::vector<std::int32_t> guess(std::span<const std::int32_t> tokens) {
    std::vector<std::int32_t> all(tokens.begin(), tokens.end());
    for (std::int64_t count = below(4); count > 0; --count)
      all.push_back(below(4) == 0 ? static_cast<std::int32_t>(below(kVocab)) : FakeModel::next(all, kVocab));
    return {all.begin() + std::ssize(tokens), all.end()};
  }

  std::vector<Loss> random_losses() {
    std::vector<Loss> losses;
    for (std::int32_t a = 0; a < workers() && !config_.layout.local(); ++a)
      if (below(25) == 0)
        losses.push_back({.attention = a,
                          .micro_batch = static_cast<std::int32_t>(below(config_.scheduler.micro_batches)),
                          .layer = static_cast<std::int32_t>(below(config_.layers)),
                          .given_up_after = 1 + below(1'000'000)});
    return losses;
  }

  void step(const std::vector<Loss>& losses) {
    const Nanoseconds before = simulation_->now();
    if (simulation_->step(losses)) {
      EXPECT_GT(simulation_->now(), before);
      if (losses.empty()) check(simulation_->last_step());  // what was given up may still run when the step ends
    } else {
      EXPECT_TRUE(simulation_->idle()) << "nobody moves";
    }
    simulation_->check_integrity();
    for (RequestEvent& event : simulation_->take_events()) hear(std::move(event));
  }

  void check(const StepTimes& times) {
    for (const LaneUse& use : times.lanes) {
      EXPECT_LE(use.busy + use.bubbles, times.duration());
      EXPECT_GE(use.bubbles, 0);
    }
  }

  void hear(RequestEvent event) {
    Story& story = stories_.at(event.id);
    EXPECT_EQ(story.finish, FinishReason::kNone) << "news after the end";
    for (const SampledToken& token : event.tokens) story.answer.push_back(token.id);
    story.finish = event.finish;
    story.status = event.status;
    tally["cached tokens"] += event.cached_tokens;
    if (event.finish != FinishReason::kNone) ++tally[std::string(name(event.finish))];
  }

  void check(const Story& story) {
    const auto alone = FakeModel::answer_alone(story.request, config_.scheduler.context_tokens_max, kVocab);
    ASSERT_LE(story.answer.size(), alone.size());
    EXPECT_TRUE(std::equal(story.answer.begin(), story.answer.end(), alone.begin())) << "request " << story.request.id;
    if (story.finish == FinishReason::kStop || story.finish == FinishReason::kLength) {
      EXPECT_EQ(story.answer.size(), alone.size());
    } else if (story.finish == FinishReason::kError) {
      EXPECT_EQ(story.status.error().code(), ErrorCode::kUnavailable);
    } else {
      EXPECT_EQ(story.finish, FinishReason::kCancelled);
    }
  }

  Rng rng_;
  SimulationConfig config_;
  bool trouble_ = true;
  std::unique_ptr<Simulation> simulation_;
  std::vector<HashModel*> models_;  // of simulation_
  std::map<RequestId, Story> stories_;
  RequestId ids_ = 0;
};

TEST(Simulation, AnswersDoNotDependOnLayoutTimeOrTrouble) {
  SeedOnAbort on_abort;
  std::map<std::string, std::int64_t> tally;
  for (std::uint64_t seed = 1; seed <= 3000; ++seed) {
    SCOPED_TRACE(format("seed {}", seed));
    on_abort.set(seed);
    RandomDeployment deployment(seed);
    deployment.run(25);
    if (HasFailure()) return;
    for (const auto& [what, count] : deployment.tally) tally[what] += count;
  }
  for (const char* what :
       {"refused", "stop", "length", "cancelled", "error", "preemptions", "cached tokens", "accepted drafts"})
    EXPECT_GT(tally[what], 500) << what;  // the test reaches what it is for
}

TEST(Simulation, TheSameSeedIsTheSameLife) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    RandomDeployment first(seed), second(seed);
    first.run(25);
    second.run(25);
    EXPECT_EQ(first.now(), second.now());
    EXPECT_EQ(first.answers(), second.answers());
  }
}

SimulationConfig decoding(const Layout& layout, std::int32_t micro_batches) {
  SimulationConfig config;
  config.layout = layout;
  config.layers = 40;
  config.kv.blocks = 64;
  config.scheduler = {.sequences_max = 12, .rows_per_step_max = 512, .vocab = kVocab, .micro_batches = micro_batches};
  config.costs = {.attention = 100'000, .attention_row = 0, .context_token = 0, .experts = 100'000, .experts_row = 0};
  return config;
}

double busy_while_decoding(const SimulationConfig& config, std::int32_t lane) {
  Simulation simulation(config, hash_models(config));
  for (RequestId id = 1; id <= 12; ++id) {
    const Request request{.id = id, .prompt = {static_cast<std::int32_t>(id)}, .new_tokens_max = 20};
    EXPECT_TRUE(simulation.submit(request));
  }
  while (simulation.step()) EXPECT_FALSE(simulation.take_events().empty());
  return static_cast<double>(simulation.total().lanes[static_cast<std::size_t>(lane)].busy) /
         static_cast<double>(simulation.total().duration());
}

TEST(Simulation, MicroBatchesOverlapAttentionAndExperts) {
  for (const std::int32_t lane : {0, 1}) {
    EXPECT_GT(busy_while_decoding(decoding({1, 1}, 3), lane), 0.9);
    EXPECT_NEAR(busy_while_decoding(decoding({1, 1}, 1), lane), 0.5, 0.06);
  }
}

TEST(Simulation, MoreRowsAndLongerContextsTakeLonger) {
  SimulationConfig config = decoding({1, 1}, 1);
  config.costs = {};
  Simulation simulation(config, hash_models(config));
  ASSERT_TRUE(simulation.submit({.id = 1, .prompt = std::vector<std::int32_t>(200, 1), .new_tokens_max = 3}));
  ASSERT_TRUE(simulation.step());
  const Nanoseconds prefill = simulation.last_step().duration();
  ASSERT_TRUE(simulation.step());
  const Nanoseconds first = simulation.last_step().duration();
  ASSERT_TRUE(simulation.step());
  const Nanoseconds second = simulation.last_step().duration();
  EXPECT_GT(prefill, 2 * first);
  EXPECT_EQ(second - first, 40 * config.costs.context_token);  // one more token to attend to in each layer
  EXPECT_FALSE(simulation.step());
  simulation.wait_until(simulation.now() + 5);
  EXPECT_EQ(simulation.now(), prefill + first + second + 5);
}

}  // namespace
}  // namespace tandem
