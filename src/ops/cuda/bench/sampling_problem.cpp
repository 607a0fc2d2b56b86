// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/bench/sampling_problem.h"

#include <algorithm>
#include <chrono>

#include "base/rng.h"
#include "ops/cuda/bench/random_fill.h"
#include "ops/cuda/cuda_backend.h"

namespace tandem::cuda {

SamplingProblem::SamplingProblem(const SamplingProblemOptions& options)
    : options_(options), backend_(make_cuda_backend()) {
  const auto rows = static_cast<std::size_t>(options.rows), vocab = static_cast<std::size_t>(options.vocab);
  logits_ = DeviceMemory(static_cast<std::size_t>(options.copies) * rows * vocab * sizeof(float));
  cuda::run(FillNormal{.out = logits_.as<float>(), .rows = options.copies * options.rows, .columns = options.vocab},
            nullptr);
  Rng rng(5);
  params_.assign(rows, options.params);
  for (SamplingParams& params : params_) params.seed = rng.next();
  for (std::int32_t i = 0; i < options.context; ++i)
    context_.push_back(static_cast<std::int32_t>(rng.below(static_cast<std::uint64_t>(options.vocab))));

  const std::vector<SampleRow> asked = rows_of();
  plain_ = std::ranges::all_of(asked, is_plain);
  const SampleNeeds needs = needs_of(asked, options.vocab);
  orders_ = backend_->allocate_shared(rows * sizeof(SampleOrder));
  words_ = backend_->allocate_shared(std::max<std::size_t>(needs.words, 1) * sizeof(std::uint32_t));
  found_ = backend_->allocate_shared(rows * sizeof(SampledRow));
  logprobs_ = backend_->allocate_shared(std::max<std::size_t>(needs.logprobs, 1) * sizeof(TokenLogprob));
  write_orders(asked, options.vocab, options.rows, {static_cast<SampleOrder*>(orders_.data()), rows},
               {static_cast<std::uint32_t*>(words_.data()), needs.words});
  if (std::ranges::any_of(asked, is_edited)) work_ = DeviceMemory(rows * 2 * vocab * sizeof(float));
  synchronise();
}

std::vector<SampleRow> SamplingProblem::rows_of() const {
  std::vector<SampleRow> rows;
  rows.reserve(params_.size());
  for (const SamplingParams& params : params_) rows.push_back({&params, context_, context_, 1000});
  return rows;
}

void SamplingProblem::run(Stream stream, int call) const {
  const std::int64_t elements = std::int64_t{options_.rows} * options_.vocab;
  cuda::run(SampleRows{.logits = logits_.as<float>() + call % options_.copies * elements,
                       .stride = options_.vocab,
                       .rows = options_.rows,
                       .vocab = options_.vocab,
                       .orders = plain_ ? nullptr : static_cast<const SampleOrder*>(orders_.data()),
                       .lists = static_cast<const std::uint32_t*>(words_.data()),
                       .work = work_.as<float>(),
                       .found = static_cast<SampledRow*>(found_.data()),
                       .logprobs = static_cast<TokenLogprob*>(logprobs_.data())},
            stream);
}

double SamplingProblem::median_call_microseconds(int calls) {
  const std::vector<SampleRow> rows = rows_of();
  std::vector<SampledToken> tokens(rows.size());
  std::vector<double> times;
  for (int call = -2; call < calls; ++call) {  // two to warm up
    const std::int64_t first = std::int64_t{(call + 2) % options_.copies} * options_.rows * options_.vocab;
    const Tensor logits(logits_.as<float>() + first, DType::kF32, {options_.rows, options_.vocab});
    const auto begin = std::chrono::steady_clock::now();
    backend_->run(Sample{logits, rows, tokens});
    const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - begin;
    if (call >= 0) times.push_back(took.count());
  }
  std::ranges::nth_element(times, times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2));
  return times[times.size() / 2];
}

int SamplingProblem::differing() const {
  const std::vector<SampleRow> rows = rows_of();
  const auto vocab = static_cast<std::size_t>(options_.vocab);
  const auto* found = static_cast<const SampledRow*>(found_.data());
  std::vector<float> scratch;
  int differing = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const std::vector<float> logits = logits_.download<float>(i * vocab * sizeof(float), vocab);
    if (found[i].id != sample_row(rows[i], logits, scratch).id) ++differing;
  }
  return differing;
}

double SamplingProblem::bytes() const {
  return static_cast<double>(options_.rows) * options_.vocab * sizeof(float);
}

}  // namespace tandem::cuda
