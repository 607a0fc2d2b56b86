// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// An engine whose logits and tokens are kept, so that two ways of running the same requests can be compared bit for
// bit.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "engine/engine.h"

namespace tandem {

// Which experts a row went to, best first, with what weight.
struct Route {
  std::vector<std::int32_t> ids;
  std::vector<float> weights;
};
using RoutePlace = std::pair<std::int32_t, std::int64_t>;  // layer, position

struct Recorded {
  std::int64_t prompt_tokens = 0;
  std::map<std::int64_t, std::vector<float>> logits;  // by position, of the rows that had some
  std::map<RoutePlace, Route> routes;                 // of the rows that were computed
  std::vector<std::int32_t> tokens;
  RequestEvent end;                 // its tokens are in tokens
  std::int64_t contradictions = 0;  // rows that were computed again, with other bits
};

class LogitRecorder final : public Observer {
 public:
  void on_route(RequestId request, std::int64_t position, std::int32_t layer, std::span<const std::int32_t> ids,
                std::span<const float> weights) override;
  void on_logits(RequestId request, std::int64_t position, std::span<const float> logits) override;
  void copy_to(RequestId request, Recorded& recorded) const;

 private:
  struct Rows {
    std::map<std::int64_t, std::vector<float>> logits;
    std::map<RoutePlace, Route> routes;
    std::int64_t contradictions = 0;
  };
  mutable std::mutex mutex_;  // several attention workers
  std::map<RequestId, Rows> rows_;
};

class RecordingEngine {
 public:
  // Unobserved, an engine may do what it does not while somebody looks (Backend::replay); tokens are all there is then.
  RecordingEngine(const Checkpoint& checkpoint, EngineConfig config, bool observed = true);

  RequestId submit(Request request);
  // Waits until request id has count tokens or has ended.
  void wait_for_tokens(RequestId id, std::size_t count);
  // Waits for everything submitted. The test fails when nothing happens for a minute.
  void wait();
  Recorded result(RequestId id) const;
  // All three, for requests that run together.
  std::vector<Recorded> run(const std::vector<Request>& requests);

  Engine& engine() { return *engine_; }
  void check_integrity();  // of every attention worker's scheduler and cache

 private:
  bool hear();

  LogitRecorder recorder_;
  std::shared_ptr<EventStream> events_ = std::make_shared<EventStream>();
  std::map<RequestId, Recorded> recorded_;
  std::set<RequestId> running_;
  std::unique_ptr<Engine> engine_;  // destroyed first: it writes to the recorder
};

// Small sizes for the checkpoints of tests/goldens: a context of 256 tokens, 8 sequences, 64 rows in a step.
EngineConfig small_engine(const std::string& layout = "local", std::int32_t micro_batches = 1);

// Tokens of a model with a vocabulary of 512; the same for the same seed.
std::vector<std::int32_t> random_prompt(std::int64_t tokens, std::uint64_t seed);

// The same tokens, ended for the same reasons.
void expect_same_answers(const std::vector<Recorded>& expected, const std::vector<Recorded>& found);

// Every token of found, and every row of logits and route that it has, is bit for bit that of expected; rows that
// tokens were drawn from are all there. expected needs the logits of the prompt.
void expect_same_bits(const Recorded& expected, const Recorded& found);

}  // namespace tandem
