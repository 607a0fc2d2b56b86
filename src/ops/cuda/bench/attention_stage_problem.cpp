// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/bench/attention_stage_problem.h"

#include <algorithm>
#include <cmath>

#include "ops/cuda/attention/mfa_page.h"
#include "ops/cuda/bench/random_fill.h"
#include "ops/cuda/gemm/fp8_tile.h"
#include "ops/cuda/gemm/norm_quantise.h"

namespace tandem::cuda {

namespace {

constexpr std::int32_t kHidden = 7168, kQueryRank = 2048, kKeyValue = 256;
constexpr std::int32_t kDown = kQueryRank + 2 * kKeyValue, kUp = MfaPage::kHeads * MfaPage::kDim;
constexpr float kEpsilon = 1e-5f;

}  // namespace

AttentionStageProblem::AttentionStageProblem(std::int32_t sequences, std::int32_t tokens)
    : sequences_(sequences),
      tile_rows_(Fp8Tile::whole_tiles(sequences)),
      down_({.counts = {sequences}, .n = kDown, .k = kHidden, .seed = 1}),
      up_({.counts = {sequences}, .n = kUp, .k = kQueryRank, .seed = 2}),
      o_({.counts = {sequences}, .n = kHidden, .k = kUp, .seed = 3}),
      attention_({.lengths = std::vector<std::int32_t>(static_cast<std::size_t>(sequences), tokens)}) {
  const std::size_t values = static_cast<std::size_t>(sequences) * kHidden;
  experts_ = DeviceMemory(values * 2);
  experts_.fill(0x3c);  // bf16 0.0115…
  residual_ = DeviceMemory(values * sizeof(float));
  cuda::run(FillNormal{.out = residual_.as<float>(), .rows = sequences, .columns = kHidden, .seed = 4}, nullptr);
  gain_ = DeviceMemory::of(std::vector<float>(kHidden, 1.f));
  std::vector<float> inv_freq;
  inv_freq.reserve(kKeyValue / 2);
  for (int i = 0; i < kKeyValue / 2; ++i) inv_freq.push_back(std::pow(500000.f, -static_cast<float>(i) / 128.f));
  inv_freq_ = DeviceMemory::of(inv_freq);
  squares_ = DeviceMemory(static_cast<std::size_t>(tile_rows_) * NormQuantise::square_parts(kHidden) * sizeof(float));
  query_squares_ = DeviceMemory(static_cast<std::size_t>(tile_rows_) * kQueryRank / 128 * sizeof(float));
  hand_over_ = DeviceMemory(static_cast<std::size_t>(tile_rows_) * kHidden);
  hand_over_scales_ = DeviceMemory(static_cast<std::size_t>(tile_rows_) * kHidden / 128 * sizeof(float));
  hand_over_scales_.fill(0xff);
  synchronise();
}

NormQuantise AttentionStageProblem::norm(const std::uint16_t* delta, std::uint8_t* tiles, float* scales) const {
  return {.residual = residual_.as<float>(),
          .delta = delta,
          .delta_stride = kHidden,
          .gain = gain_.as<float>(),
          .epsilon = kEpsilon,
          .tiles = tiles,
          .scales = scales,
          .tile_rows = tile_rows_,
          .rows = sequences_,
          .columns = kHidden};
}

void AttentionStageProblem::run(Stream stream) const {
  NormQuantise before_down = norm(experts_.as<std::uint16_t>(), down_.x_tiles(), down_.x_scales());
  before_down.squares = squares_.as<float>();
  cuda::run(before_down, stream);
  Fp8Gemm down = down_.op();
  down.after_norm = {
      .squares = squares_.as<float>(), .parts = NormQuantise::square_parts(kHidden), .epsilon = kEpsilon};
  down.before_norm = {.gain = gain_.as<float>(),
                      .columns = kQueryRank,
                      .tiles = up_.x_tiles(),
                      .scales = up_.x_scales(),
                      .squares = query_squares_.as<float>()};
  cuda::run(down, stream);
  Fp8Gemm up = up_.op();
  up.after_norm = {.squares = query_squares_.as<float>(), .parts = kQueryRank / 128, .epsilon = kEpsilon};
  cuda::run(up, stream);

  MfaPrepare prepare = attention_.prepare();
  prepare.q = up.out;
  prepare.q_stride = kUp;
  prepare.k = down.out + kQueryRank;
  prepare.v = down.out + kQueryRank + kKeyValue;
  prepare.k_stride = prepare.v_stride = kDown;
  prepare.bf16 = true;
  prepare.inv_freq = inv_freq_.as<float>();
  cuda::run(prepare, stream);
  MfaDecode decode = attention_.decode(0);
  decode.o_tiles = o_.x_tiles();
  decode.o_scales = o_.x_scales();
  decode.o_tile_rows = tile_rows_;
  decode.sequences = sequences_;
  cuda::run(decode, stream);
  o_.run(stream);
  cuda::run(norm(o_.op().out, hand_over_.as<std::uint8_t>(), hand_over_scales_.as<float>()), stream);
}

bool AttentionStageProblem::is_complete() const {
  const std::vector<float> scales = hand_over_scales_.download<float>();
  for (std::size_t block = 0; block < kHidden / 128; ++block)
    for (std::size_t row = 0; row < static_cast<std::size_t>(sequences_); ++row)
      if (!std::isfinite(scales[block * static_cast<std::size_t>(tile_rows_) + row])) return false;
  return true;
}

double AttentionStageProblem::bytes() const {
  const double rows = static_cast<double>(sequences_);
  const double not_in_bf16 = rows * (kQueryRank + kUp);  // of q-down's and attention's results, which leave in FP8
  return down_.bytes() + up_.bytes() + o_.bytes() + attention_.bytes() + rows * kHidden * (2 + 4 * 4 + 1) - not_in_bf16;
}

double AttentionStageProblem::flops() const {
  return down_.flops() + up_.flops() + o_.flops() + attention_.flops();
}

}  // namespace tandem::cuda
