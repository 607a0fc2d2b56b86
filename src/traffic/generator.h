// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Sends a workload to a server and notes when what came back. One thread: all connections are polled together, so the
// generator itself takes little of the machine that it may share with the server.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "traffic/caller.h"
#include "traffic/workload.h"

namespace tandem {

// What became of one request. Times are since the start of the run.
struct LoadRecord {
  Nanoseconds due = 0;    // when it arrived: by the clock of the workload, or when its turn came
  Nanoseconds first = 0;  // piece of the answer; 0: none came
  Nanoseconds last = 0;
  Nanoseconds end = 0;
  std::vector<Nanoseconds> gaps;   // between pieces; a piece may hold several tokens
  std::int64_t input_tokens = 0;   // as the server counts them; 0: it did not say
  std::int64_t output_tokens = 0;  // the same, or the number of pieces
  std::string finish_reason;
  std::string error;  // empty: it went well

  bool ok() const { return error.empty(); }
  Nanoseconds time_to_first() const { return first - due; }
  Nanoseconds end_to_end() const { return end - due; }
  // Of each token after the first.
  double per_token() const {
    return output_tokens > 1 ? static_cast<double>(last - first) / static_cast<double>(output_tokens - 1) : 0;
  }
};

struct GeneratorConfig {
  std::string path;  // such as /chat/completions
  std::string api_key;
  std::int64_t concurrency = 8;       // requests under way at most
  std::int64_t timeout_ms = 600'000;  // of each request
};

// Called after each request that has ended, with how many have.
using OnEnded = std::function<void(std::size_t ended)>;

// One record for each request, in the workload's order. What goes wrong with a request is in its record.
std::vector<LoadRecord> run_workload(const std::vector<LoadRequest>& workload, const Endpoints& to,
                                     const GeneratorConfig& config, const Clock& clock, const OnEnded& progress = {});

}  // namespace tandem
