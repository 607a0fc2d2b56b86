// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What an engine's operators took, gathered by operator and shape.
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "base/json.h"
#include "ops/traced.h"

namespace tandem {

struct OperatorTime {
  std::string name;
  std::string shape;  // "16 rows", and of products "16 rows, 576 x 1536": in and out
  std::int64_t rows = 0, calls = 0;
  double seconds = 0;           // of a call, the median
  double seconds_total = 0;     // of all
  double bytes = 0, flops = 0;  // of a call, the mean
};

// What a JSON line says of an operator, behind what line says of where it ran. seconds_of_all: of all that did.
void add_operator(OrderedJson& line, const OperatorTime& time, double seconds_of_all);

// add() may be called from any thread.
class OperatorTimes {
 public:
  void add(const OperatorTrace& trace);
  // What was added since the last time, the most expensive first.
  std::vector<OperatorTime> take();

 private:
  struct Calls {
    std::int64_t rows = 0;
    std::vector<Nanoseconds> times;
    Work work;
  };

  std::mutex mutex_;
  std::map<std::pair<std::string, std::string>, Calls> calls_;  // by name and shape
};

}  // namespace tandem
