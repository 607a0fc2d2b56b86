// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Operators of the backend with random operands on the GPU, and their answers from the CPU: f32 arithmetic, as models
// run it.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "ops/cuda/bench/paged_sequences.h"
#include "ops/cuda/device_memory.h"
#include "ops/kv_cache.h"
#include "ops/weight.h"
#include "tensor/tensor.h"

namespace tandem::cuda {

struct Machine;

// What a backend has, for operators to be run on any stream.
class OperatorRunner {
 public:
  OperatorRunner();
  ~OperatorRunner();
  Machine& on(Stream stream) const;

 private:
  std::unique_ptr<Machine> machine_;
};

// MatMul with a bf16 weight.
struct ProductProblemOptions {
  std::int32_t rows = 0, n = 0, k = 0;  // rows: at most
  int copies = 1;                       // of the weight, that run() takes in turn
};

class ProductProblem {
 public:
  explicit ProductProblem(const ProductProblemOptions& options);
  void take_rows(std::int32_t rows) { rows_ = rows; }  // from now on the first so many; all before
  void run(Stream stream, int call) const;
  double relative_error() const;  // of the first and the last row, after run(stream, 0): against f64
  double bytes() const;
  double flops() const;

 private:
  ProductProblemOptions options_;
  std::int32_t rows_;
  OperatorRunner runner_;
  std::vector<std::uint16_t> weight_;  // copy 0
  std::vector<std::unique_ptr<Weight>> weights_;
  DeviceMemory x_, out_;
};

// FullAttention of one picture.
struct FullAttentionProblemOptions {
  std::int32_t rows = 0, heads = 0, dim = 0;
};

class FullAttentionProblem {
 public:
  explicit FullAttentionProblem(const FullAttentionProblemOptions& options);
  void run(Stream stream) const;
  double relative_error() const;  // of some rows, all heads
  double bytes() const;
  double flops() const;

 private:
  std::int64_t columns() const { return std::int64_t{options_.heads} * options_.dim; }

  FullAttentionProblemOptions options_;
  OperatorRunner runner_;
  DeviceMemory qkv_, out_;
};

// PagedAttention of the last rows of each sequence over a bf16 cache.
struct PagedAttentionProblemOptions {
  std::int32_t sequences = 0, tokens = 0;  // of each
  std::int32_t rows = 1;                   // of each
  std::int32_t heads = 32, kv_heads = 8, dim = 128;
  int copies = 1;  // of the cache, that run() takes in turn
};

class PagedAttentionProblem {
 public:
  explicit PagedAttentionProblem(const PagedAttentionProblemOptions& options);
  void run(Stream stream, int call) const;
  double relative_error() const;  // of the first and the last row, after run(stream, 0)
  double bytes() const;           // each sequence's keys and values once
  double flops() const;

 private:
  std::int64_t rows() const { return std::int64_t{options_.sequences} * options_.rows; }
  std::int32_t position(std::int64_t row) const;
  std::int64_t context_tokens() const;

  PagedAttentionProblemOptions options_;
  OperatorRunner runner_;
  PagedSequences sequences_;
  std::unique_ptr<KvCache> cache_;
  DeviceMemory q_, out_, tables_, row_sequences_, positions_;
};

}  // namespace tandem::cuda
