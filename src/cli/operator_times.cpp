// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "cli/operator_times.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/format.h"

namespace tandem {

void add_operator(OrderedJson& line, const OperatorTime& time, double seconds_of_all) {
  line["operator"] = time.name;
  line["shape"] = time.shape;
  line["calls"] = time.calls;
  line["microseconds"] = time.seconds * 1e6;
  line["fraction_of_time"] = time.seconds_total / seconds_of_all;
  line["bytes"] = time.bytes;
  line["flops"] = time.flops;
}

void OperatorTimes::add(const OperatorTrace& trace) {
  std::string shape = format("{} row{}", trace.rows, trace.rows == 1 ? "" : "s");
  if (trace.n > 0) shape += format(", {} x {}", trace.k, trace.n);
  const std::lock_guard lock(mutex_);
  Calls& calls = calls_[{std::string(trace.name), std::move(shape)}];
  calls.rows = trace.rows;
  calls.times.push_back(trace.end - trace.begin);
  calls.work += trace.work;
}

std::vector<OperatorTime> OperatorTimes::take() {
  std::map<std::pair<std::string, std::string>, Calls> taken;
  {
    const std::lock_guard lock(mutex_);
    taken.swap(calls_);
  }
  std::vector<OperatorTime> times;
  for (auto& [key, calls] : taken) {
    const auto middle = calls.times.begin() + static_cast<std::ptrdiff_t>(calls.times.size() / 2);
    std::nth_element(calls.times.begin(), middle, calls.times.end());
    const auto count = static_cast<double>(calls.times.size());
    times.push_back(
        {.name = key.first,
         .shape = key.second,
         .rows = calls.rows,
         .calls = static_cast<std::int64_t>(calls.times.size()),
         .seconds = static_cast<double>(*middle) * 1e-9,
         .seconds_total =
             static_cast<double>(std::accumulate(calls.times.begin(), calls.times.end(), Nanoseconds{0})) * 1e-9,
         .bytes = static_cast<double>(calls.work.bytes()) / count,
         .flops = static_cast<double>(calls.work.flops) / count});
  }
  std::ranges::sort(times,
                    [](const OperatorTime& a, const OperatorTime& b) { return a.seconds_total > b.seconds_total; });
  return times;
}

}  // namespace tandem
