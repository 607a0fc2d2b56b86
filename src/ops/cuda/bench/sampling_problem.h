// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Rows of random logits on the GPU, with what is asked of them: what the benchmark of sampling draws from.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "ops/backend.h"
#include "ops/cuda/device_memory.h"
#include "ops/cuda/sampling/sample_orders.h"

namespace tandem::cuda {

struct SamplingProblemOptions {
  std::int32_t rows = 64;
  std::int32_t vocab = 151936;
  SamplingParams params;     // of all rows; their seeds differ
  std::int32_t context = 0;  // tokens of each row's prompt, and as many of its answer: for penalties
  int copies = 1;            // that run() takes in turn
};

class SamplingProblem {
 public:
  explicit SamplingProblem(const SamplingProblemOptions& options);

  // The kernel alone, on copy call % copies.
  void run(Stream stream, int call) const;
  // The backend's operator with all that the host does, waiting included: median microseconds of so many calls.
  double median_call_microseconds(int calls);
  // Rows of copy 0 whose token, after run(stream, 0), is not the definition's.
  int differing() const;
  double bytes() const;  // logits, once

 private:
  std::vector<SampleRow> rows_of() const;

  SamplingProblemOptions options_;
  std::vector<SamplingParams> params_;
  std::vector<std::int32_t> context_;
  DeviceMemory logits_, work_;
  std::unique_ptr<Backend> backend_;
  Buffer orders_, words_, found_, logprobs_;  // pinned, as the backend has them
  bool plain_ = false;
};

}  // namespace tandem::cuda
