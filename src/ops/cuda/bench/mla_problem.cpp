// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/bench/mla_problem.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/format.h"
#include "base/scalar.h"
#include "ops/cuda/attention/mla_attention.h"
#include "ops/cuda/attention/mla_prepare.h"
#include "ops/cuda/bench/random_fill.h"
#include "ops/cuda/device.h"

namespace tandem::cuda {

namespace {

constexpr int kHeads = MlaPage::kHeads, kLatent = MlaPage::kLatent, kWidth = MlaPage::kWidth;
constexpr int kComparedHeads[] = {0, 9, 63, 64, 100, 127};

float value_at(const std::vector<std::uint8_t>& image, int row, int dim) {
  const auto at = static_cast<std::size_t>(MlaPage::offset(row, dim));
  return bf16_to_f32(static_cast<std::uint16_t>(image[at] | image[at + 1] << 8));
}

// One head's output over a cache [tokens, 576].
std::vector<double> attention(const std::vector<float>& q, const std::vector<float>& latents, double scale) {
  const std::size_t tokens = latents.size() / kWidth;
  std::vector<double> scores(tokens), out(kLatent);
  double largest = -1e300, sum = 0;
  for (std::size_t t = 0; t < tokens; ++t) {
    double score = 0;
    for (std::size_t d = 0; d < kWidth; ++d) score += static_cast<double>(q[d]) * latents[t * kWidth + d];
    scores[t] = score * scale;
    largest = std::max(largest, scores[t]);
  }
  for (std::size_t t = 0; t < tokens; ++t) {
    const double weight = std::exp(scores[t] - largest);
    sum += weight;
    for (std::size_t d = 0; d < kLatent; ++d) out[d] += weight * latents[t * kWidth + d];
  }
  for (double& x : out) x /= sum;
  return out;
}

float score_scale() {
  return 1.f / std::sqrt(static_cast<float>(kWidth));
}

// Latents [slots, 576] of tokens; of the queries, too, where there are some.
void append(std::uint8_t* pages, const DeviceMemory& latents, std::span<const std::int32_t> slots,
            const DeviceMemory* queries = nullptr, std::uint8_t* q_tiles = nullptr) {
  const DeviceMemory slots_memory = DeviceMemory::of(slots);
  MlaPrepare op{};
  op.pages = pages;
  op.page_stride = MlaPage::kBytes;
  op.latent = latents.as<float>();
  op.latent_stride = kWidth;
  op.q = queries != nullptr ? queries->as<float>() : nullptr;
  op.q_stride = static_cast<std::int64_t>(kHeads) * kWidth;
  op.q_tiles = q_tiles;
  op.slots = slots_memory.as<std::int32_t>();
  op.rows = static_cast<std::int32_t>(slots.size());
  cuda::run(op, nullptr);
  synchronise();
}

}  // namespace

MlaProblem::MlaProblem(const MlaProblemOptions& options)
    : options_(options), sequences_(paged_sequences(options.lengths, options.copies, options.seed)) {
  const int clusters = options_.clusters > 0 ? options_.clusters : look_at_device().multiprocessors / 2;
  work_ =
      ScheduledWork(options_.lengths, {.blocks = clusters, .deterministic = options_.deterministic, .costs = kMlaCosts},
                    kMlaMergeShape);
  pages_ = DeviceMemory(sequences_.pool_blocks() * MlaPage::kBytes);
  pages_.fill(0);
  table_ = DeviceMemory::of(sequences_.tables);
  lengths_ = DeviceMemory::of(options_.lengths);
  out_ = DeviceMemory(options_.lengths.size() * kHeads * kLatent * (options_.as_rows ? sizeof(float) : 2));
  fill_cache();
  fill_queries();
  if (options_.as_rows) prepare_rows();
}

void MlaProblem::fill_cache() {
  constexpr std::size_t kChunk = 65536;  // tokens
  const std::vector<std::int32_t> slots = sequences_.slots();
  DeviceMemory latents(kChunk * kWidth * sizeof(float));
  std::uint32_t seed = 100 * options_.seed;
  for (std::size_t begin = 0; begin < slots.size(); begin += kChunk) {
    const std::span<const std::int32_t> chunk(&slots[begin], std::min(kChunk, slots.size() - begin));
    const auto rows = static_cast<std::int32_t>(chunk.size());
    cuda::run(FillNormal{.out = latents.as<float>(),
                         .rows = rows,
                         .columns = kWidth,
                         .mean = options_.mean,
                         .spread = .25f,
                         .seed = ++seed},
              nullptr);
    append(pages_.as<std::uint8_t>(), latents, chunk);
  }
}

void MlaProblem::fill_queries() {
  const std::size_t rows = options_.lengths.size();
  DeviceMemory page(MlaPage::kBytes), latents(rows * kWidth * sizeof(float));
  q_ = DeviceMemory(rows * kHeads * kWidth * sizeof(float));
  const std::vector<std::int32_t> slots(rows, 0);  // of a page of their own
  latents.fill(0);
  cuda::run(FillNormal{.out = q_.as<float>(),
                       .rows = static_cast<std::int64_t>(rows) * kHeads,
                       .columns = kWidth,
                       .spread = 0,
                       .seed = options_.seed + 7},
            nullptr);
  std::vector<float> scaled = q_.download<float>();
  for (float& x : scaled) x *= options_.score_deviation;
  q_.upload(std::as_bytes(std::span(scaled)));
  q_tiles_ = DeviceMemory(rows * MlaPage::kQueryBytes);
  append(page.as<std::uint8_t>(), latents, slots, &q_, q_tiles_.as<std::uint8_t>());
}

void MlaProblem::prepare_rows() {
  const std::size_t rows = options_.lengths.size();
  std::vector<std::int32_t> positions = options_.lengths, numbers(rows);
  for (std::int32_t& position : positions) --position;
  std::iota(numbers.begin(), numbers.end(), 0);
  positions_ = DeviceMemory::of(positions);
  rows_ = DeviceMemory::of(numbers);
  const std::size_t units = rows * static_cast<std::size_t>(MlaUnits{kHeads}.of_row());
  q_tiles_ = DeviceMemory(units * MlaPage::kBytes);
  if (parts_max() < 2) return;
  const std::size_t parts = units * static_cast<std::size_t>(parts_max());
  partials_ = DeviceMemory(parts * kDecodePartialValues * sizeof(float));
  partial_stats_ = DeviceMemory(parts * kDecodePartialStatsFloats * sizeof(float));
}

void MlaProblem::poison_token(std::int32_t sequence, std::int32_t token) {
  const DeviceMemory latent = DeviceMemory::of(std::vector<float>(kWidth, NAN));
  const std::int32_t block = sequences_.block(sequence, token / MlaPage::kTokens);
  append(pages_.as<std::uint8_t>(), latent,
         std::vector<std::int32_t>{block * MlaPage::kTokens + token % MlaPage::kTokens});
}

const std::int32_t* MlaProblem::table(int copy) const {
  return table_.as<std::int32_t>() + static_cast<std::size_t>(copy % options_.copies) * sequences_.table_size();
}

std::int32_t MlaProblem::parts_max() const {
  return (sequences_.blocks_max + MlaAttention::kPartPages - 1) / MlaAttention::kPartPages;
}

std::string MlaProblem::remark() const {
  return options_.as_rows ? format("queries into tiles, then parts of {} pages", MlaAttention::kPartPages)
                          : schedule().to_string();
}

void MlaProblem::run_rows(Stream stream, int copy) const {
  const auto rows = static_cast<std::int32_t>(options_.lengths.size());
  cuda::run(MlaQueries{.units = {kHeads},
                       .tiles = q_tiles_.as<std::uint8_t>(),
                       .q = q_.as<float>(),
                       .q_stride = kHeads * kWidth,
                       .rows = rows},
            stream);
  cuda::run(MlaAttention{.units = {kHeads},
                         .out = out_.as<float>(),
                         .out_stride = kHeads * kLatent,
                         .q_tiles = q_tiles_.as<std::uint8_t>(),
                         .pages = pages_.as<std::uint8_t>(),
                         .page_stride = MlaPage::kBytes,
                         .block_table = table(copy),
                         .table_stride = sequences_.blocks_max,
                         .sequences = rows_.as<std::int32_t>(),
                         .positions = positions_.as<std::int32_t>(),
                         .rows = rows,
                         .parts_max = parts_max(),
                         .window = 0,
                         .scale = score_scale(),
                         .blocks = look_at_device().multiprocessors,
                         .partials = partials_.as<float>(),
                         .partial_stats = partial_stats_.as<float>()},
            stream);
}

void MlaProblem::run(Stream stream, int copy) const {
  if (options_.as_rows) return run_rows(stream, copy);
  MlaDecode op{};
  op.out = out_.as<std::uint16_t>();
  op.q_tiles = q_tiles_.as<std::uint8_t>();
  op.pages = pages_.as<std::uint8_t>();
  op.page_stride = MlaPage::kBytes;
  op.block_table = table(copy);
  op.blocks_max = sequences_.blocks_max;
  op.lengths = lengths_.as<std::int32_t>();
  op.scale = score_scale();
  op.work = work_.work();
  cuda::run(op, stream);
}

std::vector<float> MlaProblem::latents_of(std::int32_t sequence) const {
  const std::int32_t length = options_.lengths[static_cast<std::size_t>(sequence)];
  std::vector<float> latents;
  for (std::int32_t page = 0; page < pages_of(length); ++page) {
    const auto first = static_cast<std::size_t>(sequences_.block(sequence, page)) * MlaPage::kBytes;
    const auto image = pages_.download<std::uint8_t>(first, MlaPage::kBytes);
    const int tokens = std::min(MlaPage::kTokens, length - page * MlaPage::kTokens);
    for (int t = 0; t < tokens; ++t)
      for (int d = 0; d < kWidth; ++d) latents.push_back(value_at(image, t, d));
  }
  return latents;
}

// As the kernel had it.
std::vector<float> MlaProblem::query_of(std::int32_t sequence, int head) const {
  const auto row = static_cast<std::size_t>(sequence);
  if (options_.as_rows)
    return q_.download<float>((row * kHeads + static_cast<std::size_t>(head)) * kWidth * sizeof(float), kWidth);
  const auto half = q_tiles_.download<std::uint8_t>(
      row * MlaPage::kQueryBytes + static_cast<std::size_t>(head) / 64 * MlaPage::kBytes, MlaPage::kBytes);
  std::vector<float> q(kWidth);
  for (int d = 0; d < kWidth; ++d) q[static_cast<std::size_t>(d)] = value_at(half, head % 64, d);
  return q;
}

double MlaProblem::relative_error(const std::vector<std::int32_t>& sequences) const {
  std::vector<float> out;
  if (options_.as_rows)
    out = out_.download<float>();
  else
    for (const std::uint16_t bits : output()) out.push_back(bf16_to_f32(bits));
  double error = 0, size = 0;
  for (const std::int32_t sequence : sequences) {
    const std::vector<float> latents = latents_of(sequence);
    for (const int head : kComparedHeads) {
      const std::vector<double> right = attention(query_of(sequence, head), latents, score_scale());
      const std::size_t at = (static_cast<std::size_t>(sequence) * kHeads + static_cast<std::size_t>(head)) * kLatent;
      for (std::size_t d = 0; d < right.size(); ++d) {
        const double x = out[at + d];
        error += (x - right[d]) * (x - right[d]);
        size += right[d] * right[d];
      }
    }
  }
  return std::sqrt(error / size);
}

double MlaProblem::bytes() const {
  const auto sequences = static_cast<double>(options_.lengths.size());
  const double row = options_.as_rows ? kHeads * (kWidth + kLatent) * sizeof(float)  // and its tiles, in the L2 cache
                                      : MlaPage::kQueryBytes + kHeads * kLatent * 2;
  return static_cast<double>(sequences_.blocks) * MlaPage::kBytes + sequences * row;
}

double MlaProblem::flops() const {
  double tokens = 0;
  for (const std::int32_t length : options_.lengths) tokens += length;
  return tokens * 2 * kHeads * (kWidth + kLatent);
}

}  // namespace tandem::cuda
