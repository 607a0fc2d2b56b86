// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/bench/mfa_problem.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "base/scalar.h"
#include "ops/cuda/attention/mfa_page.h"
#include "ops/cuda/attention/mfa_prepare.h"
#include "ops/cuda/bench/random_fill.h"
#include "ops/cuda/device.h"

namespace tandem::cuda {

namespace {

constexpr int kHeads = MfaPage::kHeads, kDim = MfaPage::kDim, kTokens = MfaPage::kTokens;
constexpr float kScale = 1.f / 16.f;

// The direction that a sink's key and all queries share.
float sink_direction(int dim) {
  return dim * 2654435761u >> 16 & 1 ? 1.f : -1.f;
}

// K and V of a cache's tokens, appended through the same kernel as in production.
void append(const MfaPrepare& prepare, const std::vector<std::int32_t>& slots) {
  const DeviceMemory slots_memory = DeviceMemory::of(slots);
  const DeviceMemory positions = DeviceMemory::of(std::vector<std::int32_t>(slots.size(), 0));  // no rotation
  const DeviceMemory inv_freq = DeviceMemory::of(std::vector<float>(kDim / 2, 1.f));
  MfaPrepare op = prepare;
  op.slots = slots_memory.as<std::int32_t>();
  op.positions = positions.as<std::int32_t>();
  op.inv_freq = inv_freq.as<float>();
  op.rows = static_cast<std::int32_t>(slots.size());
  run(op, nullptr);
  synchronise();
}

}  // namespace

MfaProblem::MfaProblem(const MfaProblemOptions& options)
    : options_(options), sequences_(paged_sequences(options.lengths, options.copies, options.seed)) {
  const std::vector<std::int32_t>& lengths = options_.lengths;
  const int blocks = options_.blocks > 0 ? options_.blocks : look_at_device().multiprocessors;
  work_ =
      ScheduledWork(lengths, {.blocks = blocks, .deterministic = options_.deterministic, .costs = options_.costs}, {});
  pages_ = DeviceMemory(sequences_.pool_blocks() * mfa_page_bytes(options_.cache));
  pages_.fill(0);
  table_ = DeviceMemory::of(sequences_.tables);
  lengths_ = DeviceMemory::of(lengths);
  out_ = DeviceMemory(lengths.size() * kHeads * kDim * 2);
  std::vector<std::int32_t> slots, positions;
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    positions.push_back(lengths[i] - 1);
    slots.push_back(sequences_.block(static_cast<std::int32_t>(i), positions.back() / kTokens) * kTokens +
                    positions.back() % kTokens);
  }
  newest_slots_ = DeviceMemory::of(slots);
  newest_positions_ = DeviceMemory::of(positions);
  fill_cache();
  fill_queries();
}

void MfaProblem::fill_cache() {
  constexpr std::size_t kChunk = 65536;  // tokens
  const std::vector<std::int32_t> slots = sequences_.slots();
  DeviceMemory k(kChunk * kDim * sizeof(float)), v(kChunk * kDim * sizeof(float));
  MfaPrepare op{};
  op.cache = options_.cache;
  op.pages = pages_.as<std::uint8_t>();
  op.page_stride = mfa_page_bytes(options_.cache);
  op.k = k.as<float>();
  op.v = v.as<float>();
  op.k_stride = op.v_stride = kDim;
  std::uint32_t seed = 100 * options_.seed;
  for (std::size_t begin = 0; begin < slots.size(); begin += kChunk) {
    const std::size_t end = std::min(begin + kChunk, slots.size());
    const auto rows = static_cast<std::int64_t>(end - begin);
    cuda::run(FillNormal{.out = k.as<float>(), .rows = rows, .columns = kDim, .spread = .25f, .seed = ++seed}, nullptr);
    cuda::run(
        FillNormal{
            .out = v.as<float>(), .rows = rows, .columns = kDim, .mean = options_.v_mean, .spread = 1, .seed = ++seed},
        nullptr);
    append(op, {slots.begin() + static_cast<long>(begin), slots.begin() + static_cast<long>(end)});
  }
  if (!options_.sink) return;
  std::vector<float> key(kDim);
  for (int d = 0; d < kDim; ++d) key[static_cast<std::size_t>(d)] = 1.5f * sink_direction(d);
  const DeviceMemory sink = DeviceMemory::of(key);
  op.k = sink.as<float>();
  std::size_t first = 0;
  for (int copy = 0; copy < options_.copies; ++copy)
    for (const std::int32_t length : options_.lengths) {
      append(op, {slots[first]});
      first += static_cast<std::size_t>(length);
    }
}

void MfaProblem::fill_queries() {
  std::mt19937 random(options_.seed + 7);
  std::normal_distribution<float> normal(0, options_.score_deviation);
  const std::size_t count = options_.lengths.size() * kHeads * kDim;
  std::vector<std::uint16_t> bits(count);
  queries_.resize(count);
  for (std::size_t i = 0; i < count; ++i) {
    bits[i] = f32_to_bf16(normal(random) + (options_.sink ? .5f * sink_direction(static_cast<int>(i % kDim)) : 0.f));
    queries_[i] = bf16_to_f32(bits[i]);
  }
  const DeviceMemory q = DeviceMemory::of(bits);
  q_tiles_ = DeviceMemory(2 * count);
  q_scales_ = DeviceMemory(count / kDim * sizeof(float));
  // Their keys and values go to a page of their own.
  DeviceMemory page(mfa_page_bytes(options_.cache));
  DeviceMemory zeros(kDim * sizeof(float));
  zeros.fill(0);
  MfaPrepare op{};
  op.cache = options_.cache;
  op.q_tiles = q_tiles_.as<std::uint8_t>();
  op.q_scales = q_scales_.as<float>();
  op.pages = page.as<std::uint8_t>();
  op.q = q.as<std::uint16_t>();
  op.k = op.v = zeros.as<std::uint16_t>();
  op.q_stride = kHeads * kDim;
  op.bf16 = true;
  append(op, std::vector<std::int32_t>(options_.lengths.size(), 0));
}

MfaDecode MfaProblem::decode(int copy) const {
  MfaDecode op{};
  op.cache = options_.cache;
  op.out = out_.as<std::uint16_t>();
  op.q_tiles = q_tiles_.as<std::uint8_t>();
  op.q_scales = q_scales_.as<float>();
  op.pages = pages_.as<std::uint8_t>();
  op.page_stride = mfa_page_bytes(options_.cache);
  op.block_table =
      table_.as<std::int32_t>() + static_cast<std::size_t>(copy % options_.copies) * sequences_.table_size();
  op.blocks_max = sequences_.blocks_max;
  op.lengths = lengths_.as<std::int32_t>();
  op.scale = kScale;
  op.work = work_.work();
  op.cache_is_settled = true;
  return op;
}

MfaPrepare MfaProblem::prepare() const {
  MfaPrepare op{};
  op.cache = options_.cache;
  op.q_tiles = q_tiles_.as<std::uint8_t>();
  op.q_scales = q_scales_.as<float>();
  op.pages = pages_.as<std::uint8_t>();
  op.page_stride = mfa_page_bytes(options_.cache);
  op.positions = newest_positions_.as<std::int32_t>();
  op.slots = newest_slots_.as<std::int32_t>();
  op.rows = static_cast<std::int32_t>(options_.lengths.size());
  return op;
}

std::vector<double> MfaProblem::expected(std::int32_t sequence) const {
  const std::int32_t length = options_.lengths[static_cast<std::size_t>(sequence)];
  const auto count = static_cast<std::size_t>(length) * kDim;
  std::vector<float> k, v;
  DeviceMemory canonical(2 * kTokens * kDim * sizeof(float));
  for (std::int32_t page = 0; page < pages_of(length); ++page) {
    const std::int32_t block = sequences_.block(sequence, page);
    cuda::run(MfaExportPage{.cache = options_.cache,
                            .canonical = canonical.as<float>(),
                            .page = pages_.as<std::uint8_t>() +
                                    static_cast<std::size_t>(block) * mfa_page_bytes(options_.cache)},
              nullptr);
    const std::vector<float> both = canonical.download<float>();
    k.insert(k.end(), both.begin(), both.begin() + kTokens * kDim);
    v.insert(v.end(), both.begin() + kTokens * kDim, both.end());
  }
  k.resize(count);
  v.resize(count);
  std::vector<double> out(kHeads * kDim), scores(static_cast<std::size_t>(length));
  for (std::size_t head = 0; head < kHeads; ++head) {
    const float* q = &queries_[(static_cast<std::size_t>(sequence) * kHeads + head) * kDim];
    double largest = -1e300, sum = 0;
    for (std::size_t t = 0; t < scores.size(); ++t) {
      double score = 0;
      for (std::size_t d = 0; d < kDim; ++d) score += static_cast<double>(q[d]) * k[t * kDim + d];
      scores[t] = score * kScale;
      largest = std::max(largest, scores[t]);
    }
    double* row = &out[head * kDim];
    for (std::size_t t = 0; t < scores.size(); ++t) {
      const double weight = std::exp(scores[t] - largest);
      sum += weight;
      for (std::size_t d = 0; d < kDim; ++d) row[d] += weight * v[t * kDim + d];
    }
    for (std::size_t d = 0; d < kDim; ++d) row[d] /= sum;
  }
  return out;
}

double MfaProblem::relative_error(const std::vector<std::int32_t>& sequences) const {
  const std::vector<std::uint16_t> out = output();
  double error = 0, size = 0;
  for (const std::int32_t sequence : sequences) {
    const std::vector<double> right = expected(sequence);
    for (std::size_t i = 0; i < right.size(); ++i) {
      const double x = bf16_to_f32(out[static_cast<std::size_t>(sequence) * right.size() + i]);
      error += (x - right[i]) * (x - right[i]);
      size += right[i] * right[i];
    }
  }
  return std::sqrt(error / size);
}

double MfaProblem::bytes() const {
  const auto sequences = static_cast<double>(options_.lengths.size());
  return static_cast<double>(sequences_.blocks) * mfa_page_bytes(options_.cache) +
         sequences * (2 * MfaPage::kQueryTileBytes + kHeads * kDim * 2);
}

double MfaProblem::flops() const {
  double tokens = 0;
  for (const std::int32_t length : options_.lengths) tokens += length;
  return tokens * 4 * kHeads * kDim;
}

}  // namespace tandem::cuda
