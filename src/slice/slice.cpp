// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "slice/slice.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <queue>
#include <vector>

#include "base/error.h"
#include "base/format.h"
#include "ops/cuda/device.h"
#include "slice/expert_parallel_slice.h"
#include "slice/row_search.h"
#include "slice/slice_gpus.h"

namespace tandem {

namespace {

constexpr int kAloneStepsMax = 40;
constexpr double kAloneWarmUpSeconds = 2;
// Of what a search tries.
constexpr int kTrySteps = 20;
constexpr double kTrySeconds = 1.5;

SliceReport measure(ExpertParallelSlice& slice, const SliceOptions& options, const cuda::GpuLimits&) {
  SliceReport report{.options = options, .load = load_of(options.deployment, options.rows)};
  report.attention.gigabytes = slice.gigabytes();
  const std::uint32_t before = slice.mismatches();
  report.together = slice.measure(options.steps);
  report.mismatches = slice.mismatches() - before;
  report.expert_rows_max = slice.expert_rows_max();
  return report;
}

SliceReport measure(SliceGpus& slice, const SliceOptions& options, const cuda::GpuLimits& limits) {
  SliceReport report{.options = options, .load = load_of(options.deployment, options.rows)};
  report.attention = slice.attention_report(limits);
  report.ffn = slice.ffn_report(limits);
  const bool both = options.sides == SliceSides::kBoth;
  const std::uint32_t before = slice.mismatches();
  report.together = slice.measure(options.sides, {.steps = options.steps, .warm_up_seconds = options.warm_up_seconds});
  if (both) {
    report.memory_growth = slice.memory_growth();
    report.mismatches = slice.mismatches() - before;
  }
  if (options.trace_steps > 0) report.trace = slice.trace(options.sides);
  if (options.sides == SliceSides::kAttention) report.attention.alone = report.together;
  if (options.sides == SliceSides::kFfn) report.ffn.alone = report.together;
  if (both && options.alone) {
    // On GPUs that come from work.
    const SliceRun alone{.steps = std::min(options.steps, kAloneStepsMax),
                         .warm_up_seconds = std::min(options.warm_up_seconds, kAloneWarmUpSeconds)};
    report.attention.alone = slice.measure(SliceSides::kAttention, alone);
    report.ffn.alone = slice.measure(SliceSides::kFfn, alone);
  }
  report.expert_rows_max = slice.expert_rows_max();
  return report;
}

// One deployment, whose weights stay while its rows change.
template <class Gpus>
class Slice {
 public:
  SliceReport measured(const SliceOptions& options, const cuda::GpuLimits& limits) {
    if (gpus_)
      gpus_->take(options);
    else
      gpus_ = std::make_unique<Gpus>(options);
    return measure(*gpus_, options, limits);
  }

 private:
  std::unique_ptr<Gpus> gpus_;
};

void check(const SliceOptions& options) {
  if (const std::string missing = cuda::why_unusable(cuda::look_at_device()); !missing.empty())
    throw Error(ErrorCode::kUnavailable, missing);
  if (options.sides == SliceSides::kBoth && options.attention_gpu == options.ffn_gpu)
    throw Error(
        ErrorCode::kInvalidArgument,
        format("GPU {} for both sides at once: a slice takes two, or one side at a time", options.attention_gpu));
}

template <class Gpus>
void measure_each(const SliceOptions& options, std::span<const SliceBatch> batches, const cuda::GpuLimits& limits,
                  const SliceObserver& observer) {
  Slice<Gpus> slice;
  SliceOptions of_batch = options;
  for (const SliceBatch& batch : batches) {
    of_batch.set(batch);
    std::optional<SliceReport> report;
    try {
      report = slice.measured(of_batch, limits);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kOutOfResources) throw;
      observer.on_no_room(batch, error);
      continue;
    }
    observer.on_report(*report);
  }
}

// As many tokens of context to begin with as three micro-batches of 128 sequences of 4,096 have (two where nobody waits
// for another side), in steps of a sixteenth.
RowGrid grid_of(const SliceOptions& options) {
  const std::int32_t micro_batches = options.deployment.disaggregated() ? 3 : 2;
  const std::int64_t first = std::int64_t{128} * 4096 * micro_batches / options.context / options.micro_batches;
  return {.first = static_cast<std::int32_t>(std::min<std::int64_t>(first, SliceOptions::kRowsMax)),
          .step = static_cast<std::int32_t>(std::clamp<std::int64_t>(first / 16, 1, 8))};
}

// What was tried and kept the time, or may; the best on top.
struct Try {
  SliceBatch batch;
  double tokens_per_second;

  bool operator<(const Try& other) const { return tokens_per_second < other.tokens_per_second; }
};
using Tries = std::priority_queue<Try>;

template <class Gpus>
Tries tries_within(const SliceOptions& options, const SliceSearch& search, const cuda::GpuLimits& limits,
                   Slice<Gpus>& slice, const std::function<void(const SliceReport&)>& on_try) {
  SliceOptions tried = options;
  tried.alone = false;
  tried.trace_steps = 0;
  tried.steps = std::min(options.steps, kTrySteps);
  tried.warm_up_seconds = std::min(options.warm_up_seconds, kTrySeconds);
  Tries tries;
  const auto step_us = [&](std::int32_t rows) -> std::optional<double> {
    if (rows > SliceOptions::kRowsMax) return std::nullopt;
    tried.rows = rows;
    try {
      const SliceReport report = slice.measured(tried, limits);
      on_try(report);
      if (report.together.median <= search.tpot_us)
        tries.push({tried.batch(), report.tokens_per_second_of_attention_gpu()});
      return report.together.median;
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kOutOfResources) throw;
      return std::nullopt;
    }
  };
  for (const std::int32_t micro_batches : search.micro_batches) {
    tried.micro_batches = micro_batches;
    most_rows(grid_of(tried), search.tpot_us, step_us);  // which may not be the best of those on the way
  }
  return tries;
}

// Tries are short: on a clock that has not come down for long they take a little less than they will. So the best of
// them is measured as it was asked for, and where that takes too long others, among them one step of rows fewer.
template <class Gpus>
SliceReport best_of(const SliceOptions& options, const SliceSearch& search, const cuda::GpuLimits& limits,
                    const std::function<void(const SliceReport&)>& on_try) {
  Slice<Gpus> slice;
  SliceOptions chosen = options;
  std::vector<SliceBatch> measured;  // again they might be lucky
  for (Tries tries = tries_within(options, search, limits, slice, on_try); !tries.empty();) {
    const Try best = tries.top();
    tries.pop();
    if (std::ranges::find(measured, best.batch) != measured.end()) continue;
    measured.push_back(best.batch);
    chosen.set(best.batch);
    SliceReport report = slice.measured(chosen, limits);
    if (report.together.median <= search.tpot_us) return report;
    on_try(report);
    const std::int32_t rows = best.batch.rows, fewer = rows - grid_of(chosen).step;
    if (fewer > 0) tries.push({{best.batch.micro_batches, fewer}, best.tokens_per_second * fewer / rows});
  }
  return {};
}

}  // namespace

SliceReport measure_slice(const SliceOptions& options, const cuda::GpuLimits& limits) {
  check(options);
  return options.deployment.disaggregated() ? Slice<SliceGpus>().measured(options, limits)
                                            : Slice<ExpertParallelSlice>().measured(options, limits);
}

void measure_batches(const SliceOptions& options, std::span<const SliceBatch> batches, const cuda::GpuLimits& limits,
                     const SliceObserver& observer) {
  check(options);
  return options.deployment.disaggregated() ? measure_each<SliceGpus>(options, batches, limits, observer)
                                            : measure_each<ExpertParallelSlice>(options, batches, limits, observer);
}

SliceReport best_slice(const SliceOptions& options, const SliceSearch& search, const cuda::GpuLimits& limits,
                       const std::function<void(const SliceReport&)>& on_try) {
  check(options);
  return options.deployment.disaggregated() ? best_of<SliceGpus>(options, search, limits, on_try)
                                            : best_of<ExpertParallelSlice>(options, search, limits, on_try);
}

}  // namespace tandem
