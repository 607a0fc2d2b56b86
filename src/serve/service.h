// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What every route works with. Made once, used by all HTTP threads; nothing in it changes but counters.
#pragma once

#include <atomic>

#include "base/clock.h"
#include "engine/engine.h"
#include "serve/api_keys.h"
#include "serve/metrics.h"
#include "serve/openai/request.h"
#include "serve/settings.h"
#include "session/open_model.h"

namespace tandem {

struct Service {
  Engine& engine;
  const OpenModel& model;
  const ServeSettings& settings;
  GrammarVocabulary grammars;
  RemotePictures remote;
  RequestScope scope;
  ApiKeys keys;
  CacheSalts salts;
  Metrics metrics;
  RealClock clock;
  std::int64_t started_unix_seconds = 0;
  std::atomic<bool> draining{false};  // no new work; what runs may end
};

// A place for the answers of one request among --streams-max.
class StreamPlaces {
 public:
  // Throws ApiError 429.
  StreamPlaces(Service& service, std::int64_t count);
  ~StreamPlaces() { service_.metrics.answers_running -= count_; }
  StreamPlaces(const StreamPlaces&) = delete;
  StreamPlaces& operator=(const StreamPlaces&) = delete;

 private:
  Service& service_;
  const std::int64_t count_;
};

}  // namespace tandem
