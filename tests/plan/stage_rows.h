// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A small file of measured stages, with times that can be added up by heart.
#pragma once

#include <string>
#include <vector>

#include "base/format.h"
#include "plan/stage_ladders.h"

namespace tandem {

// Attention: every kernel takes 1 us at 64 rows and 2 us at 128, attention itself 40 and 80 us at 4,096 tokens and
// twice that at 8,192; beside others half of it. A seal a tenth. FFN over 16 GPUs: 10 us at 1,024 rows, 20 us at 2,048;
// beside others half. A layer takes 5 us more than its kernels at 64 rows of attention, and 6 us at 1,024 of the FFN.
inline std::vector<StageKernel> stage_rows() {
  std::vector<StageKernel> all;
  const auto add = [&](const char* stage, const char* kernel, double rows, double context, std::int32_t gpus,
                       double us) { all.push_back({stage, kernel, rows, context, gpus, us * 1e-6, us * 0.5e-6}); };
  for (const double rows : {64., 128.}) {
    for (const char* kernel :
         {"norm-in", "q-down-k-v", "norm-q", "q-up", "rope-append", "quantise-o", "o", "norm-out", "router", "flag"})
      add("attention", kernel, rows, 4096, 0, rows / 64);
    add("attention", "seal", rows, 4096, 0, rows / 640);
    for (const double context : {4096., 8192.}) {
      add("attention", "mfa-decode-fp8", rows, context, 0, 40 * (rows / 64) * (context / 4096));
      add("attention", "layer", rows, context, 0, (15 + 40 * (context / 4096)) * (rows / 64));
    }
    for (const char* kernel : {"norm-head", "head", "sample-greedy", "begin-step"})
      add("head", kernel, rows, 4096, 0, rows / 64);
  }
  for (const double rows : {1024., 2048.}) {
    add("ffn", "layer", rows, 0, 16, 86 * rows / 1024);
    for (const char* kernel :
         {"exchange-rows", "plan-rows", "gather", "gate-up", "down", "exchange-results", "combine", "flag",
          "dense-plan-rows", "dense-gather", "dense-gate-up", "dense-down", "dense-combine"})
      add("ffn", kernel, rows, 0, 16, 10 * rows / 1024);
  }
  return all;
}

// The same as lines of tandem bench kernels --stages --json.
inline std::string stage_lines() {
  std::string lines;
  for (const StageKernel& k : stage_rows())
    lines += format(
        R"({{"model":"step3","stage":"{}","kernel":"{}","rows":{},{},"microseconds":{},"microseconds_beside":{},"clock_mhz":1700,"watts":690}})"
        "\n",
        k.stage, k.kernel, k.rows, k.gpus > 0 ? format("\"gpus\":{}", k.gpus) : format("\"context\":{}", k.context),
        k.seconds * 1e6, k.seconds_beside * 1e6);
  return lines;
}

}  // namespace tandem
