// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "tests/engine/recording_engine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/rng.h"

namespace tandem {

namespace {

constexpr Nanoseconds kPatience = 60 * kSecond;

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

bool same_route(const Route& a, const Route& b) {
  return a.ids == b.ids && same_bits(a.weights, b.weights);
}

}  // namespace

void LogitRecorder::on_logits(RequestId request, std::int64_t position, std::span<const float> logits) {
  const std::vector<float> row(logits.begin(), logits.end());
  std::lock_guard lock(mutex_);
  Rows& rows = rows_[request];
  const auto [known, fresh] = rows.logits.try_emplace(position, row);
  rows.contradictions += !fresh && !same_bits(known->second, row);
}

void LogitRecorder::on_route(RequestId request, std::int64_t position, std::int32_t layer,
                             std::span<const std::int32_t> ids, std::span<const float> weights) {
  Route route{{ids.begin(), ids.end()}, {weights.begin(), weights.end()}};
  std::lock_guard lock(mutex_);
  Rows& rows = rows_[request];
  const auto [known, fresh] = rows.routes.try_emplace({layer, position}, route);
  rows.contradictions += !fresh && !same_route(known->second, route);
}

void LogitRecorder::copy_to(RequestId request, Recorded& recorded) const {
  std::lock_guard lock(mutex_);
  const auto rows = rows_.find(request);
  if (rows == rows_.end()) return;
  recorded.logits = rows->second.logits;
  recorded.routes = rows->second.routes;
  recorded.contradictions = rows->second.contradictions;
}

RecordingEngine::RecordingEngine(const Checkpoint& checkpoint, EngineConfig config, bool observed) {
  if (observed) config.observer = &recorder_;
  engine_ = Engine::start(checkpoint, config);
}

RequestId RecordingEngine::submit(Request request) {
  request.id = engine_->next_id();
  const RequestId id = request.id;
  recorded_[id].prompt_tokens = static_cast<std::int64_t>(request.prompt.size());
  if (const Status submitted = engine_->submit(std::move(request), events_); submitted)
    running_.insert(id);
  else
    ADD_FAILURE() << submitted.error().message();
  return id;
}

bool RecordingEngine::hear() {
  std::optional<RequestEvent> event = events_->pop(kPatience);
  if (!event) {
    ADD_FAILURE() << running_.size() << " requests do not end";
    return false;
  }
  Recorded& recorded = recorded_.at(event->id);
  for (const SampledToken& token : event->tokens) recorded.tokens.push_back(token.id);
  if (event->finish == FinishReason::kNone) return true;
  EXPECT_EQ(running_.erase(event->id), 1u) << "a second end";
  recorded.end = std::move(*event);
  return true;
}

void RecordingEngine::wait_for_tokens(RequestId id, std::size_t count) {
  while (running_.contains(id) && recorded_.at(id).tokens.size() < count && hear()) {
  }
}

void RecordingEngine::wait() {
  while (!running_.empty() && hear()) {
  }
}

Recorded RecordingEngine::result(RequestId id) const {
  Recorded recorded = recorded_.at(id);
  recorder_.copy_to(id, recorded);
  return recorded;
}

std::vector<Recorded> RecordingEngine::run(const std::vector<Request>& requests) {
  std::vector<RequestId> ids;
  // All arrive before the first worker's next step, however the threads run.
  EXPECT_TRUE(engine_->attention_workers().front()->between_steps([&] {
    for (const Request& request : requests) ids.push_back(submit(request));
  }));
  wait();
  std::vector<Recorded> results;
  for (const RequestId id : ids) results.push_back(result(id));
  return results;
}

void RecordingEngine::check_integrity() {
  for (AttentionWorker* worker : engine_->attention_workers())
    EXPECT_TRUE(worker->between_steps([&] { worker->scheduler().check_integrity(); }));
}

EngineConfig small_engine(const std::string& layout, std::int32_t micro_batches) {
  EngineConfig config;
  config.layout = parse_layout(layout);
  config.micro_batches = micro_batches;
  config.threads = config.layout.workers();
  config.kv_tokens = 2048;
  config.context_tokens_max = 256;
  config.sequences_max = 8;
  config.rows_per_step_max = 64;
  config.prefill_chunk = 40;
  return config;
}

std::vector<std::int32_t> random_prompt(std::int64_t tokens, std::uint64_t seed) {
  Rng rng(seed);
  std::vector<std::int32_t> prompt(static_cast<std::size_t>(tokens));
  for (std::int32_t& token : prompt) token = static_cast<std::int32_t>(rng.below(512));
  return prompt;
}

void expect_same_answers(const std::vector<Recorded>& expected, const std::vector<Recorded>& found) {
  ASSERT_EQ(found.size(), expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(found[i].tokens, expected[i].tokens) << "request " << i;
    EXPECT_EQ(found[i].end.finish, expected[i].end.finish) << "request " << i;
  }
}

void expect_same_bits(const Recorded& expected, const Recorded& found) {
  ASSERT_EQ(found.end.finish, expected.end.finish) << (found.end.status ? "" : found.end.status.error().message());
  EXPECT_EQ(found.tokens, expected.tokens);
  EXPECT_EQ(found.contradictions, 0);
  for (std::int64_t i = 0; i < std::ssize(found.tokens); ++i)
    ASSERT_TRUE(found.logits.contains(found.prompt_tokens - 1 + i)) << "no logits for token " << i;
  for (const auto& [position, row] : found.logits) {
    const auto other = expected.logits.find(position);
    ASSERT_NE(other, expected.logits.end()) << "position " << position;
    ASSERT_TRUE(same_bits(other->second, row)) << "logits differ at position " << position;
    ASSERT_TRUE(std::ranges::all_of(row, [](float x) { return std::isfinite(x); })) << "position " << position;
  }
  for (const auto& [place, route] : found.routes) {
    const auto other = expected.routes.find(place);
    ASSERT_NE(other, expected.routes.end()) << "layer " << place.first << ", position " << place.second;
    ASSERT_TRUE(same_route(other->second, route)) << "layer " << place.first << ", position " << place.second;
  }
}

}  // namespace tandem
