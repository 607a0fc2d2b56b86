// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "engine/speed.h"

#include <map>

#include "base/rng.h"
#include "ops/metered.h"

namespace tandem {

namespace {

constexpr Nanoseconds kPatience = 600 * kSecond;  // for one event, however slow the machine

Work difference(const Work& after, const Work& before) {
  return {after.flops - before.flops, after.bytes_read - before.bytes_read, after.bytes_written - before.bytes_written};
}

// Time and work between two moments.
class Stopwatch {
 public:
  explicit Stopwatch(const WorkMeter* meter) : meter_(meter) { restart(); }
  void restart() {
    begin_ = clock_.now();
    before_ = meter_ ? meter_->total() : Work();
  }
  Speed stop(std::int64_t tokens) const {
    Speed speed{.seconds = static_cast<double>(clock_.now() - begin_) * 1e-9, .tokens = tokens};
    if (meter_) speed.work = difference(meter_->total(), before_);
    return speed;
  }

 private:
  const WorkMeter* meter_;
  RealClock clock_;
  Nanoseconds begin_ = 0;
  Work before_;
};

// A batch of requests under way.
class Run {
 public:
  Run(Engine& engine, const Prompts& prompts, std::int32_t new_tokens) : events_(std::make_shared<EventStream>()) {
    for (const std::vector<std::int32_t>& prompt : prompts) {
      Request request;
      request.id = engine.next_id();
      request.prompt = prompt;
      request.new_tokens_max = new_tokens;
      tokens_[request.id] = 0;
      ++running_;
      if (const Status submitted = engine.submit(std::move(request), events_); !submitted) throw submitted.error();
    }
    waiting_ = running_;
  }

  void step() {
    const std::optional<RequestEvent> event = events_->pop(kPatience);
    if (!event) throw Error(ErrorCode::kUnavailable, "the engine gave no token for ten minutes");
    if (event->finish == FinishReason::kError) throw event->status.error();
    std::int64_t& tokens = tokens_[event->id];
    if (tokens == 0 && !event->tokens.empty()) --waiting_;
    tokens += static_cast<std::int64_t>(event->tokens.size());
    total_ += static_cast<std::int64_t>(event->tokens.size());
    if (event->finish != FinishReason::kNone) --running_;
  }

  bool all_begun() const { return waiting_ == 0; }
  bool all_ended() const { return running_ == 0; }
  std::int64_t tokens() const { return total_; }

 private:
  std::shared_ptr<EventStream> events_;
  std::map<RequestId, std::int64_t> tokens_;
  std::int64_t running_ = 0, waiting_ = 0, total_ = 0;
};

}  // namespace

void WorkMeter::connect(EngineConfig& config) {
  config.wrap_backend = [this](std::unique_ptr<Backend> backend) {
    return make_metered_backend(std::move(backend), [this](const Work& done) {
      flops_.fetch_add(done.flops, std::memory_order_relaxed);
      bytes_read_.fetch_add(done.bytes_read, std::memory_order_relaxed);
      bytes_written_.fetch_add(done.bytes_written, std::memory_order_relaxed);
    });
  };
}

Prompts random_prompts(const ModelConfig& model, std::int64_t count, std::int64_t tokens, std::uint64_t seed) {
  Rng rng(seed);
  Prompts prompts(static_cast<std::size_t>(count));
  for (std::vector<std::int32_t>& prompt : prompts)
    for (std::int64_t i = 0; i < tokens; ++i)
      prompt.push_back(static_cast<std::int32_t>(rng.below(static_cast<std::uint64_t>(model.vocab))));
  return prompts;
}

Speed measure_prefill(Engine& engine, const Prompts& prompts, const WorkMeter* meter) {
  std::int64_t tokens = 0;
  for (const std::vector<std::int32_t>& prompt : prompts) tokens += static_cast<std::int64_t>(prompt.size());
  const Stopwatch watch(meter);
  Run run(engine, prompts, 1);
  while (!run.all_ended()) run.step();
  return watch.stop(tokens);
}

Speed measure_decode(Engine& engine, const Prompts& prompts, std::int32_t new_tokens, const WorkMeter* meter) {
  Stopwatch watch(meter);
  Run run(engine, prompts, new_tokens);
  std::int64_t before = 0;
  while (!run.all_begun()) run.step();
  if (!run.all_ended()) {  // else the engine was done before anybody looked: the whole run is what there is to time
    watch.restart();
    before = run.tokens();
  }
  while (!run.all_ended()) run.step();
  return watch.stop(run.tokens() - before);
}

}  // namespace tandem
