// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/bench/operator_problem.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "base/rng.h"
#include "base/scalar.h"
#include "ops/cuda/bench/random_fill.h"
#include "ops/cuda/cuda_kv_cache.cuh"
#include "ops/cuda/cuda_weight.cuh"
#include "ops/cuda/device.h"
#include "ops/cuda/machine.cuh"

namespace tandem::cuda {

namespace {

constexpr std::size_t kScratchBytes = std::size_t{64} << 20;  // as the backend has

// ‖found − expected‖ / ‖expected‖, gathered piece by piece.
class RelativeError {
 public:
  void add(double found, double expected) {
    error_ += (found - expected) * (found - expected);
    size_ += expected * expected;
  }
  double value() const { return std::sqrt(error_ / size_); }

 private:
  double error_ = 0, size_ = 0;
};

DeviceMemory normal(std::int64_t rows, std::int64_t columns, std::uint32_t seed) {
  DeviceMemory memory(static_cast<std::size_t>(rows * columns) * sizeof(float));
  cuda::run(FillNormal{.out = memory.as<float>(), .rows = rows, .columns = columns, .seed = seed}, nullptr);
  synchronise();
  return memory;
}

Tensor matrix(const DeviceMemory& memory, std::int64_t rows, std::int64_t columns) {
  return Tensor(memory.as<float>(), DType::kF32, {rows, columns});
}

// One query over rows of keys and values, stride apart.
std::vector<double> attention(std::span<const float> q, const float* k, const float* v, std::size_t tokens,
                              std::size_t stride, double scale) {
  std::vector<double> scores(tokens), out(q.size());
  for (std::size_t t = 0; t < tokens; ++t) {
    for (std::size_t i = 0; i < q.size(); ++i) scores[t] += static_cast<double>(q[i]) * k[t * stride + i];
    scores[t] *= scale;
  }
  const double top = std::ranges::max(scores);
  double sum = 0;
  for (std::size_t t = 0; t < tokens; ++t) {
    const double weight = std::exp(scores[t] - top);
    sum += weight;
    for (std::size_t i = 0; i < q.size(); ++i) out[i] += weight * v[t * stride + i];
  }
  for (double& value : out) value /= sum;
  return out;
}

float scale_of(std::int32_t dim) {
  return 1.0f / std::sqrt(static_cast<float>(dim));
}

}  // namespace

OperatorRunner::OperatorRunner() : machine_(std::make_unique<Machine>()) {
  machine_->multiprocessors = look_at_device().multiprocessors;
  machine_->scratch = allocate_device(kScratchBytes);
}

OperatorRunner::~OperatorRunner() = default;

Machine& OperatorRunner::on(Stream stream) const {
  machine_->stream = stream;
  return *machine_;
}

// ---- products

ProductProblem::ProductProblem(const ProductProblemOptions& options)
    : options_(options),
      rows_(options.rows),
      weight_(static_cast<std::size_t>(options.n) * static_cast<std::size_t>(options.k)),
      x_(normal(options.rows, options.k, 1)),
      out_(static_cast<std::size_t>(options.rows) * static_cast<std::size_t>(options.n) * sizeof(float)) {
  DeviceMemory filled(weight_.size() * sizeof(std::uint16_t));
  cuda::run(FillNormalBf16{.out = filled.as<std::uint16_t>(), .values = static_cast<std::int64_t>(weight_.size())},
            nullptr);
  synchronise();
  weight_ = filled.download<std::uint16_t>();
  const WeightPart part{reinterpret_cast<const std::byte*>(weight_.data()),
                        DType::kBF16,
                        options.n,
                        static_cast<std::size_t>(options.k) * sizeof(std::uint16_t),
                        {}};
  for (int copy = 0; copy < options.copies; ++copy) weights_.push_back(CudaWeight::pack({{part}, options.k}));
  out_.fill(0xff);
}

void ProductProblem::run(Stream stream, int call) const {
  cuda::run(runner_.on(stream), MatMul{.out = matrix(out_, rows_, options_.n),
                                       .x = matrix(x_, rows_, options_.k),
                                       .weight = weights_[static_cast<std::size_t>(call) % weights_.size()].get(),
                                       .slices = KSlices::whole(options_.k)});
}

double ProductProblem::relative_error() const {
  const auto n = static_cast<std::size_t>(options_.n), k = static_cast<std::size_t>(options_.k);
  RelativeError error;
  for (const std::int32_t row : {0, rows_ - 1}) {
    const auto at = static_cast<std::size_t>(row);
    const std::vector<float> x = x_.download<float>(at * k * sizeof(float), k);
    const std::vector<float> found = out_.download<float>(at * n * sizeof(float), n);
    for (std::size_t c = 0; c < n; c += 7) {
      double sum = 0;
      for (std::size_t i = 0; i < k; ++i) sum += static_cast<double>(x[i]) * bf16_to_f32(weight_[c * k + i]);
      error.add(found[c], sum);
    }
  }
  return error.value();
}

double ProductProblem::bytes() const {
  return static_cast<double>(weight_.size()) * sizeof(std::uint16_t) + 4. * rows_ * (options_.k + options_.n);
}

double ProductProblem::flops() const {
  return 2. * rows_ * options_.n * options_.k;
}

// ---- attention of a picture

FullAttentionProblem::FullAttentionProblem(const FullAttentionProblemOptions& options)
    : options_(options),
      qkv_(normal(options.rows, 3 * columns(), 2)),
      out_(static_cast<std::size_t>(options.rows * columns()) * sizeof(float)) {
  out_.fill(0xff);
}

void FullAttentionProblem::run(Stream stream) const {
  const Tensor qkv = matrix(qkv_, options_.rows, 3 * columns());
  cuda::run(runner_.on(stream), FullAttention{.out = matrix(out_, options_.rows, columns()),
                                              .q = qkv.slice_columns(0, columns()),
                                              .k = qkv.slice_columns(columns(), columns()),
                                              .v = qkv.slice_columns(2 * columns(), columns()),
                                              .heads = options_.heads,
                                              .scale = scale_of(options_.dim)});
}

double FullAttentionProblem::relative_error() const {
  const std::vector<float> qkv = qkv_.download<float>(), found = out_.download<float>();
  const auto width = static_cast<std::size_t>(columns()), dim = static_cast<std::size_t>(options_.dim);
  RelativeError error;
  for (const std::int32_t row : {0, options_.rows / 2, options_.rows - 1})
    for (std::size_t first = 0; first < width; first += dim) {
      const auto at = static_cast<std::size_t>(row);
      const std::vector<double> expected =
          attention(std::span(qkv).subspan(at * 3 * width + first, dim), &qkv[width + first], &qkv[2 * width + first],
                    static_cast<std::size_t>(options_.rows), 3 * width, scale_of(options_.dim));
      for (std::size_t i = 0; i < dim; ++i) error.add(found[at * width + first + i], expected[i]);
    }
  return error.value();
}

double FullAttentionProblem::bytes() const {
  return static_cast<double>(qkv_.bytes() + out_.bytes());
}

double FullAttentionProblem::flops() const {
  return 4. * options_.rows * options_.rows * static_cast<double>(columns());
}

// ---- attention of rows over pages

PagedAttentionProblem::PagedAttentionProblem(const PagedAttentionProblemOptions& options)
    : options_(options),
      sequences_(paged_sequences(std::vector<std::int32_t>(static_cast<std::size_t>(options.sequences), options.tokens),
                                 options.copies, 3)),
      q_(normal(rows(), std::int64_t{options.heads} * options.dim, 4)),
      out_(q_.bytes()) {
  auto cache = std::make_unique<CudaKvCache>(KvSpec{1, options.kv_heads, options.dim, options.dim, DType::kBF16,
                                                    static_cast<std::int32_t>(sequences_.pool_blocks())},
                                             nullptr);
  cuda::run(FillNormalBf16{.out = reinterpret_cast<std::uint16_t*>(cache->layer(0)),
                           .values = static_cast<std::int64_t>(cache->block_bytes() / 2 * sequences_.pool_blocks())},
            nullptr);
  cache_ = std::move(cache);
  std::vector<std::int32_t> sequence_of, positions;
  for (std::int64_t row = 0; row < rows(); ++row) {
    sequence_of.push_back(static_cast<std::int32_t>(row / options.rows));
    positions.push_back(position(row));
  }
  tables_ = DeviceMemory::of(sequences_.tables);
  row_sequences_ = DeviceMemory::of(sequence_of);
  positions_ = DeviceMemory::of(positions);
  out_.fill(0xff);
  synchronise();
}

std::int32_t PagedAttentionProblem::position(std::int64_t row) const {
  return options_.tokens - options_.rows + static_cast<std::int32_t>(row % options_.rows);
}

std::int64_t PagedAttentionProblem::context_tokens() const {
  std::int64_t tokens = 0;
  for (std::int64_t row = 0; row < rows(); ++row) tokens += position(row) + 1;
  return tokens;
}

void PagedAttentionProblem::run(Stream stream, int call) const {
  const std::int64_t width = std::int64_t{options_.heads} * options_.dim;
  std::int32_t* table =
      tables_.as<std::int32_t>() + static_cast<std::size_t>(call % options_.copies) * sequences_.table_size();
  cuda::run(runner_.on(stream),
            PagedAttention{.out = matrix(out_, rows(), width),
                           .q = matrix(q_, rows(), width),
                           .block_table = Tensor(table, DType::kI32, {options_.sequences, sequences_.blocks_max}),
                           .sequences = Tensor(row_sequences_.as<std::int32_t>(), DType::kI32, {rows()}),
                           .positions = Tensor(positions_.as<std::int32_t>(), DType::kI32, {rows()}),
                           .cache = cache_.get(),
                           .layer = 0,
                           .heads = options_.heads,
                           .scale = scale_of(options_.dim),
                           .context_tokens = context_tokens()});
}

double PagedAttentionProblem::relative_error() const {
  const CudaKvCache& cache = of(cache_.get());
  const auto dim = static_cast<std::size_t>(options_.dim), width = static_cast<std::size_t>(options_.heads) * dim;
  const std::size_t page_values = cache.block_bytes() / 2, head_values = kBlockTokens * dim;
  const auto kv_heads = static_cast<std::size_t>(options_.kv_heads), group = width / dim / kv_heads;
  RelativeError error;
  for (const std::int64_t row : {std::int64_t{0}, rows() - 1}) {
    const auto tokens = static_cast<std::size_t>(position(row)) + 1;
    std::vector<float> k(kv_heads * tokens * dim), v = k;  // [kv head][token][dim]
    for (std::size_t t = 0; t < tokens; t += kBlockTokens) {
      const std::int32_t block =
          sequences_.block(static_cast<std::int32_t>(row / options_.rows), static_cast<std::int32_t>(t / kBlockTokens));
      std::vector<std::uint16_t> page(page_values);
      need(cudaMemcpy(page.data(), cache.layer(0) + static_cast<std::size_t>(block) * cache.block_bytes(),
                      cache.block_bytes(), cudaMemcpyDeviceToHost),
           "copying a page");
      const std::size_t count = std::min<std::size_t>(kBlockTokens, tokens - t);
      for (std::size_t head = 0; head < kv_heads; ++head)
        for (std::size_t i = 0; i < count * dim; ++i) {
          k[(head * tokens + t) * dim + i] = bf16_to_f32(page[head * head_values + i]);
          v[(head * tokens + t) * dim + i] = bf16_to_f32(page[(kv_heads + head) * head_values + i]);
        }
    }
    const auto at = static_cast<std::size_t>(row) * width;
    const std::vector<float> q = q_.download<float>(at * sizeof(float), width),
                             found = out_.download<float>(at * sizeof(float), width);
    for (std::size_t head = 0; head < width / dim; ++head) {
      const std::size_t from = head / group * tokens * dim;
      const std::vector<double> expected =
          attention(std::span(q).subspan(head * dim, dim), &k[from], &v[from], tokens, dim, scale_of(options_.dim));
      for (std::size_t i = 0; i < dim; ++i) error.add(found[head * dim + i], expected[i]);
    }
  }
  return error.value();
}

double PagedAttentionProblem::bytes() const {
  const double cached = 2. * options_.kv_heads * options_.dim * 2;
  return static_cast<double>(options_.sequences) * options_.tokens * cached +
         static_cast<double>(q_.bytes() + out_.bytes());
}

double PagedAttentionProblem::flops() const {
  return 4. * static_cast<double>(context_tokens()) * options_.heads * options_.dim;
}

}  // namespace tandem::cuda
