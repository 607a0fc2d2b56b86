// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/bench/fp8_problem.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <random>

#include "base/scalar.h"
#include "ops/cuda/bench/random_fill.h"
#include "ops/cuda/device.h"
#include "ops/cuda/gemm/fp8_quantise.h"
#include "ops/cuda/gemm/fp8_tile.h"

namespace tandem::cuda {

namespace {

std::array<float, 256> e4m3_values() {
  std::array<float, 256> values{};
  for (std::size_t code = 0; code < values.size(); ++code)
    values[code] = f8_e4m3_to_f32(static_cast<std::uint8_t>(code));
  return values;
}

}  // namespace

std::vector<double> fp8_row(const std::vector<std::uint8_t>& tiles, const std::vector<float>& scales, std::int64_t rows,
                            std::int32_t row, std::int32_t columns) {
  static const std::array<float, 256> kValues = e4m3_values();
  std::vector<double> values(static_cast<std::size_t>(columns));
  for (std::int32_t c = 0; c < columns; ++c) {
    const std::int64_t tile = c / 128 * (rows / Fp8Tile::kRows) + row / Fp8Tile::kRows;
    const std::uint8_t code =
        tiles[static_cast<std::size_t>(tile * Fp8Tile::kBytes + Fp8Tile::offset(row % Fp8Tile::kRows, c % 128))];
    values[static_cast<std::size_t>(c)] =
        static_cast<double>(kValues[code]) * scales[static_cast<std::size_t>(c / 128 * rows + row)];
  }
  return values;
}

Fp8Problem::Fp8Problem(const Fp8ProblemOptions& options) : options_(options) {
  lay_out_rows();
  fill_weight();
  fill_activations();
  make_outputs();
}

Fp8Problem::Fp8Problem(const Fp8ProblemOptions& options, const Fp8Problem& first) : options_(options) {
  lay_out_rows();
  fill_weight();
  x_memory_ = &first.hidden_;
  x_scales_memory_ = &first.hidden_scales_;
  make_outputs();
}

void Fp8Problem::lay_out_rows() {
  if (options_.rows_max == 0) options_.rows_max = std::ranges::max(options_.counts);
  for (const std::int32_t count : options_.counts) {
    begins_.push_back(static_cast<std::int32_t>(rows_));
    rows_ += Fp8Tile::whole_tiles(options_.contiguous ? count : options_.rows_max);
  }
  begin_memory_ = DeviceMemory::of(begins_);
  count_memory_ = DeviceMemory::of(options_.counts);
}

void Fp8Problem::fill_weight() {
  const std::size_t experts = options_.counts.size();
  const auto n = static_cast<std::size_t>(options_.n), k = static_cast<std::size_t>(options_.k);
  weight_ = DeviceMemory(experts * n * k);
  packed_ = DeviceMemory(experts * n * k);
  cuda::run(FillE4m3{.out = weight_.as<std::uint8_t>(),
                     .bytes = static_cast<std::int64_t>(weight_.bytes()),
                     .seed = options_.seed},
            nullptr);
  std::mt19937 random(options_.seed);
  std::uniform_real_distribution<float> uniform(.5f, 2.f);
  std::vector<float> scales(experts * n / 128 * k / 128);
  for (float& scale : scales) scale = uniform(random) / (64.f * std::sqrt(static_cast<float>(k)));
  weight_scales_ = DeviceMemory::of(scales);
  packed_scales_ = DeviceMemory(scales.size() * sizeof(float));
  for (std::size_t e = 0; e < experts; ++e) {
    PackFp8Weight op{};
    op.packed = packed_.as<std::uint8_t>() + e * n * k;
    op.packed_scales = packed_scales_.as<float>() + e * n / 128 * k / 128;
    op.n = options_.n;
    op.k = options_.k;
    op.weight = weight_.as<std::uint8_t>() + e * n * k;
    op.scales = weight_scales_.as<float>() + e * n / 128 * k / 128;
    cuda::run(op, nullptr);
  }
  synchronise();
}

void Fp8Problem::fill_activations() {
  const DeviceMemory x(static_cast<std::size_t>(rows_ * options_.k) * sizeof(float));
  cuda::run(
      FillNormal{.out = x.as<float>(), .rows = rows_, .columns = options_.k, .spread = 1, .seed = options_.seed + 1},
      nullptr);
  x_ = DeviceMemory(static_cast<std::size_t>(rows_ * options_.k));
  x_scales_ = DeviceMemory(static_cast<std::size_t>(rows_ * options_.k / 128) * sizeof(float));
  cuda::run(QuantiseTiles{.tiles = x_.as<std::uint8_t>(),
                          .scales = x_scales_.as<float>(),
                          .x = x.as<float>(),
                          .bf16 = false,
                          .rows = static_cast<std::int32_t>(rows_),
                          .columns = options_.k,
                          .tile_rows = rows_},
            nullptr);
  synchronise();
}

void Fp8Problem::make_outputs() {
  const auto values = static_cast<std::size_t>(rows_) * static_cast<std::size_t>(options_.n);
  if (options_.swiglu) {
    hidden_ = DeviceMemory(values / 2);
    hidden_scales_ = DeviceMemory(values / 256 * sizeof(float));
  } else {
    out_ = DeviceMemory(values * 2);
  }
  scratch_ = DeviceMemory(Fp8Gemm::kScratchBytes);
  scratch_.fill(0);
  poison_output();
}

void Fp8Problem::poison_output() {
  out_.fill(0xff);
  hidden_.fill(0xff);
  hidden_scales_.fill(0xff);
}

Fp8Gemm Fp8Problem::op() const {
  const DeviceMemory& x = x_memory_ != nullptr ? *x_memory_ : x_;
  const DeviceMemory& x_scales = x_scales_memory_ != nullptr ? *x_scales_memory_ : x_scales_;
  Fp8Gemm op{};
  op.x = x.as<std::uint8_t>();
  op.x_scales = x_scales.as<float>();
  op.x_rows = rows_;
  op.weight = packed_.as<std::uint8_t>();
  op.weight_scales = packed_scales_.as<float>();
  op.experts = static_cast<std::int32_t>(options_.counts.size());
  if (op.experts > 1 || options_.counts[0] < options_.rows_max) {  // else known when the launch is recorded
    op.row_begin = begin_memory_.as<std::int32_t>();
    op.row_count = count_memory_.as<std::int32_t>();
  }
  op.rows_max = options_.rows_max;
  op.rows_usual = options_.rows_usual;
  op.scratch = scratch_.as<std::byte>();
  op.n = options_.n;
  op.k = options_.k;
  if (options_.swiglu) {
    op.hidden = hidden_.as<std::uint8_t>();
    op.hidden_scales = hidden_scales_.as<float>();
  } else {
    op.out = out_.as<std::uint16_t>();
  }
  return op;
}

// What is on the GPU.
struct Fp8Problem::Host {
  std::vector<std::uint8_t> x, weight, hidden;
  std::vector<float> x_scales, weight_scales, hidden_scales;
  std::vector<std::uint16_t> out;
};

std::vector<double> Fp8Problem::expected(const Host& host, int expert, std::int32_t row) const {
  static const std::array<float, 256> kValues = e4m3_values();
  const std::vector<double> x = fp8_row(host.x, host.x_scales, rows_, row_begin(expert) + row, options_.k);
  const auto n = static_cast<std::size_t>(options_.n), k = static_cast<std::size_t>(options_.k);
  const std::uint8_t* weight = &host.weight[static_cast<std::size_t>(expert) * n * k];
  const float* weight_scales = &host.weight_scales[static_cast<std::size_t>(expert) * n / 128 * k / 128];
  std::vector<double> out(n);
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t block = 0; block < k / 128; ++block) {
      double sum = 0;
      for (std::size_t j = block * 128; j < block * 128 + 128; ++j) sum += x[j] * kValues[weight[i * k + j]];
      out[i] += sum * weight_scales[i / 128 * (k / 128) + block];
    }
  if (!options_.swiglu) return out;
  for (std::size_t i = 0; i < n / 2; ++i) out[i] = out[i] / (1 + std::exp(-out[i])) * out[n / 2 + i];
  out.resize(n / 2);
  return out;
}

std::vector<double> Fp8Problem::result(const Host& host, int expert, std::int32_t row) const {
  const std::int32_t at = row_begin(expert) + row;
  if (options_.swiglu) return fp8_row(host.hidden, host.hidden_scales, rows_, at, options_.n / 2);
  std::vector<double> values(static_cast<std::size_t>(options_.n));
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = bf16_to_f32(host.out[static_cast<std::size_t>(at) * values.size() + i]);
  return values;
}

double Fp8Problem::relative_error(int step) const {
  const Host host{.x = (x_memory_ != nullptr ? *x_memory_ : x_).download<std::uint8_t>(),
                  .weight = weight_.download<std::uint8_t>(),
                  .hidden = hidden_.download<std::uint8_t>(),
                  .x_scales = (x_scales_memory_ != nullptr ? *x_scales_memory_ : x_scales_).download<float>(),
                  .weight_scales = weight_scales_.download<float>(),
                  .hidden_scales = hidden_scales_.download<float>(),
                  .out = output()};
  double error = 0, size = 0;
  for (std::size_t expert = 0; expert < options_.counts.size(); ++expert)
    for (std::int32_t row = 0; row < options_.counts[expert]; row += step) {
      const std::vector<double> right = expected(host, static_cast<int>(expert), row);
      const std::vector<double> got = result(host, static_cast<int>(expert), row);
      for (std::size_t i = 0; i < right.size(); ++i) {
        error += (got[i] - right[i]) * (got[i] - right[i]);
        size += right[i] * right[i];
      }
    }
  return std::sqrt(error / size);
}

Fp8GemmPlan Fp8Problem::plan() const {
  return plan_of(op(), look_at_device().multiprocessors);
}

double Fp8Problem::bytes() const {
  const double rows = std::accumulate(options_.counts.begin(), options_.counts.end(), 0.);
  return static_cast<double>(packed_.bytes()) + rows * (options_.k + options_.n * (options_.swiglu ? .5 : 2.));
}

double Fp8Problem::flops() const {
  return 2. * std::accumulate(options_.counts.begin(), options_.counts.end(), 0.) * options_.n * options_.k;
}

}  // namespace tandem::cuda
