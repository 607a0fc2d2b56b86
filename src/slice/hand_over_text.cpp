// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "base/check.h"
#include "base/format.h"
#include "base/json.h"
#include "slice/hand_over_time.h"
#include "slice/slice_trace.h"

namespace tandem {

const char* to_string(RowsBy rows) {
  return rows == RowsBy::kStores ? "stores" : "copy engine";
}

const char* to_string(cuda::FlagsBy flags) {
  return flags == cuda::FlagsBy::kThreads ? "threads" : "front ends";
}

HandOverTime hand_over_time(const std::vector<std::uint64_t>& began_ns, std::size_t rounds_of_launch) {
  TANDEM_CHECK(rounds_of_launch > 1 && began_ns.size() % rounds_of_launch == 0, "rounds of whole launches");
  std::vector<double> one_way;
  for (std::size_t i = 1; i < began_ns.size(); ++i)
    if (i % rounds_of_launch != 0) one_way.push_back(1e-3 * static_cast<double>(began_ns[i] - began_ns[i - 1]) / 2);
  const Quantiles q = quantiles_of(std::move(one_way));
  return {.median = q.p50, .p99 = q.p99};
}

std::string hand_over_text(const HandOverReport& report) {
  std::string text =
      format("copies {:.0f} GB/s one way\n{:<12} {:<11} {:>9} {:>11} {:>7} {:>7}\n",
             report.link_bytes_per_second * 1e-9, "rows by", "flags by", "bytes", "one way us", "p99", "wire us");
  for (const HandOverTime& t : report.times)
    text += format("{:<12} {:<11} {:>9} {:>11.2f} {:>7.2f} {:>7.2f}\n", to_string(t.rows), to_string(t.flags), t.bytes,
                   t.median, t.p99, 1e6 * static_cast<double>(t.bytes) / report.link_bytes_per_second);
  return text;
}

std::string hand_over_json(const HandOverReport& report) {
  std::string lines;
  for (const HandOverTime& t : report.times)
    lines += OrderedJson{{"hand_over_bytes", t.bytes},     {"rows_by", to_string(t.rows)},
                         {"flags_by", to_string(t.flags)}, {"one_way_us", t.median},
                         {"one_way_p99_us", t.p99},        {"link_bytes_per_second", report.link_bytes_per_second}}
                 .dump() +
             "\n";
  return lines;
}

}  // namespace tandem
