// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "slice/slice.h"

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "base/format.h"
#include "ops/cuda/device.h"
#include "ops/cuda/peer/devices.h"
#include "slice/expert_parallel_slice.h"
#include "slice/row_search.h"
#include "slice/slice_gpus.h"

namespace tandem {

namespace {

using cuda::OnDevice;

constexpr int kAloneStepsMax = 60;

// Of both GPUs.
std::int64_t free_bytes(const SliceOptions& options) {
  std::int64_t bytes = 0;
  for (const std::int32_t gpu : {options.attention_gpu, options.ffn_gpu}) {
    const OnDevice on(gpu);
    bytes += static_cast<std::int64_t>(cuda::look_at_device().bytes_free);
  }
  return bytes;
}

SliceReport measure_expert_parallel(const SliceOptions& options) {
  ExpertParallelSlice slice(options);
  SliceReport report{.options = options, .load = load_of(options.deployment, options.rows)};
  report.attention.gigabytes = slice.gigabytes();
  const std::uint32_t before = slice.mismatches();
  report.together = slice.measure(options.steps);
  report.mismatches = slice.mismatches() - before;
  report.expert_rows_max = slice.expert_rows_max();
  return report;
}

}  // namespace

SliceReport measure_slice(const SliceOptions& options, const cuda::GpuLimits& limits) {
  if (const std::string missing = cuda::why_unusable(cuda::look_at_device()); !missing.empty())
    throw Error(ErrorCode::kUnavailable, missing);
  if (options.sides == SliceSides::kBoth && options.attention_gpu == options.ffn_gpu)
    throw Error(
        ErrorCode::kInvalidArgument,
        format("GPU {} for both sides at once: a slice takes two, or one side at a time", options.attention_gpu));
  if (!options.deployment.disaggregated()) return measure_expert_parallel(options);
  SliceGpus slice(options);
  SliceReport report{.options = options, .load = load_of(options.deployment, options.rows)};
  report.attention = slice.attention_report(limits);
  report.ffn = slice.ffn_report(limits);
  const int alone = options.sides == SliceSides::kBoth ? std::min(options.steps, kAloneStepsMax) : options.steps;
  if (options.sides != SliceSides::kFfn)
    report.together = report.attention.alone = slice.measure(SliceSides::kAttention, alone);
  if (options.sides != SliceSides::kAttention)
    report.together = report.ffn.alone = slice.measure(SliceSides::kFfn, alone);
  if (options.sides == SliceSides::kBoth) {
    const std::uint32_t before = slice.mismatches();
    const std::int64_t free = free_bytes(options);
    report.together = slice.measure(SliceSides::kBoth, options.steps);
    report.memory_growth = free - free_bytes(options);
    report.mismatches = slice.mismatches() - before;
  }
  if (options.trace_steps > 0) report.trace = slice.trace(options.sides);
  report.expert_rows_max = slice.expert_rows_max();
  return report;
}

SliceReport best_slice(const SliceOptions& options, double tpot_us, const cuda::GpuLimits& limits,
                       const std::function<void(const SliceReport&)>& on_try) {
  SliceReport best;
  const auto step_us = [&](std::int32_t rows) -> std::optional<double> {
    SliceOptions tried = options;
    tried.rows = rows;
    try {
      SliceReport report = measure_slice(tried, limits);
      on_try(report);
      const double us = report.together.median;
      if (us <= tpot_us && rows > best.options.rows) best = std::move(report);
      return us;
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kOutOfResources) throw;
      return std::nullopt;
    }
  };
  // As many tokens of context to begin with as 128 sequences of 4,096 have.
  (void)most_rows(128 * 4096 / options.context, tpot_us, step_us);
  return best;
}

}  // namespace tandem
