// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "slice/attention_side.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "base/error.h"
#include "base/format.h"
#include "ops/cuda/attention/mfa_decode.h"
#include "ops/cuda/attention/mfa_page.h"
#include "ops/cuda/attention/mfa_prepare.h"
#include "ops/cuda/bench/random_fill.h"
#include "ops/cuda/device.h"
#include "ops/cuda/gemm/fp8_tile.h"
#include "ops/cuda/sampling/sample_rows.h"
#include "ops/cuda/split/decode_step.h"
#include "ops/cuda/split/route_rows.h"
#include "slice/side_memory.h"

namespace tandem {

namespace {

using cuda::DeviceMemory;

constexpr std::int32_t kHidden = SliceModel::kHidden, kKeyValue = SliceModel::kHeadDim;
constexpr std::int32_t kDown = SliceModel::kQueryRank + 2 * kKeyValue, kUp = SliceModel::kHeads * SliceModel::kHeadDim;
constexpr float kEpsilon = 1e-5f, kRopeTheta = 500000.f;
constexpr std::int64_t kProductsPerLayer =
    std::int64_t{kDown} * kHidden + std::int64_t{kUp} * SliceModel::kQueryRank + std::int64_t{kUp} * kHidden;

std::size_t size(std::int64_t n) {
  return static_cast<std::size_t>(n);
}

}  // namespace

std::int64_t AttentionSide::weight_bytes(const AttentionSideOptions& o) {
  return o.model.layers * kProductsPerLayer + std::int64_t{SliceModel::kVocabPadded} * kHidden * 3;
}

std::int64_t AttentionSide::row_bytes(const AttentionSideOptions& o) {
  const std::int64_t pages = std::int64_t{o.model.layers} * o.micro_batches * o.rows * cuda::pages_of(o.context);
  const std::int64_t rows = std::int64_t{o.rows} * o.micro_batches;
  return pages * cuda::MfaPage::kBytes + rows * (std::int64_t{SliceModel::kVocabPadded} * 4 + kHidden * 24 + kUp * 6);
}

AttentionSide::AttentionSide(const AttentionSideOptions& options)
    : options_(options), pages_of_sequence_(cuda::pages_of(options.context)) {
  need_room(options.rows, weight_bytes(options));
  make_weights();
  make_rows();
}

void AttentionSide::need_room(std::int32_t rows, std::int64_t weight_bytes) const {
  AttentionSideOptions wanted = options_;
  wanted.rows = rows;
  tandem::need_room("attention",
                    format("{} x {} sequences of {} tokens", wanted.micro_batches, wanted.rows, wanted.context),
                    weight_bytes + row_bytes(wanted));
}

void AttentionSide::resize(const SliceBatch& batch, std::int32_t return_blocks) {
  batches_.clear();
  pages_ = DeviceMemory();
  options_.micro_batches = batch.micro_batches;
  need_room(batch.rows, 0);
  options_.rows = batch.rows;
  options_.return_blocks = return_blocks;
  make_rows();
}

void AttentionSide::make_rows() {
  layout_ = {.rows = options_.rows};
  pages_of_layer_ = std::int64_t{options_.micro_batches} * options_.rows * pages_of_sequence_;
  make_cache();
  for (std::int32_t m = 0; m < options_.micro_batches; ++m) make_batch(m);
  cuda::synchronise();
}

void AttentionSide::make_weights() {
  for (std::int32_t l = 0; l < options_.model.layers; ++l) {
    const auto seed = static_cast<std::uint32_t>(10 * l + 1);
    Layer layer;
    layer.down = random_tiles(1, kDown, kHidden, seed);
    layer.up = random_tiles(1, kUp, SliceModel::kQueryRank, seed + 1);
    layer.o = random_tiles(1, kHidden, kUp, seed + 2);
    layer.down_scales = tile_scales(1, kDown, kHidden, 1);
    layer.up_scales = tile_scales(1, kUp, SliceModel::kQueryRank, 1);
    layer.o_scales = tile_scales(1, kHidden, kUp, 1);
    layer.router = random_bf16(std::int64_t{SliceModel::kExperts} * kHidden, 1.f / std::sqrt(float{kHidden}), seed + 3);
    layers_.push_back(std::move(layer));
  }
  embedding_ = random_bf16(std::int64_t{SliceModel::kVocab} * kHidden, 1, 7);
  head_ = random_tiles(1, SliceModel::kVocabPadded, kHidden, 8);
  head_scales_ = tile_scales(1, SliceModel::kVocabPadded, kHidden, 1);
  gain_ = repeated_f32(kHidden, 1);
  std::vector<float> inv_freq;
  inv_freq.reserve(kKeyValue / 2);
  for (int i = 0; i < kKeyValue / 2; ++i)
    inv_freq.push_back(std::pow(kRopeTheta, -2.f * static_cast<float>(i) / static_cast<float>(kKeyValue)));
  inv_freq_ = DeviceMemory::of(inv_freq);
}

void AttentionSide::make_cache() {
  const std::int64_t pages = options_.model.layers * pages_of_layer_;
  pages_ = DeviceMemory(size(pages) * cuda::MfaPage::kBytes);
  cuda::run(cuda::FillMfaPages{.pages = pages_.as<std::uint8_t>(), .count = pages, .seed = 9}, nullptr);
}

// Sequences at all places of their last page, whose pages lie anywhere in the micro-batch's part of the pool.
void AttentionSide::make_batch(std::int32_t m) {
  const std::int64_t rows = options_.rows;
  MicroBatch b;
  b.residual = zeros(size(rows) * kHidden * 4);
  b.x = zeros(size(layout_.tile_rows()) * kHidden);
  b.x_scales = zeros(size(layout_.tile_rows()) * kHidden / 32);
  b.x_squares = zeros(size(layout_.tile_rows()) * cuda::NormQuantise::square_parts(kHidden) * 4);
  b.down = zeros(size(layout_.tile_rows()) * kDown * 2);
  b.up_x = zeros(size(layout_.tile_rows()) * SliceModel::kQueryRank);
  b.up_x_scales = zeros(size(layout_.tile_rows()) * SliceModel::kQueryRank / 32);
  b.up_x_squares = zeros(size(layout_.tile_rows()) * SliceModel::kQueryRank / 32);
  b.q = zeros(size(layout_.tile_rows()) * kUp * 2);
  b.q_tiles = zeros(size(rows) * 2 * cuda::MfaPage::kQueryTileBytes);
  b.q_scales = zeros(size(rows) * SliceModel::kHeads * 4);
  b.attention = zeros(size(rows) * kUp * 2);
  b.o_x = zeros(size(layout_.tile_rows()) * kUp);
  b.o_x_scales = zeros(size(layout_.tile_rows()) * kUp / 32);
  b.o = zeros(size(layout_.tile_rows()) * kHidden * 2);
  b.normed = zeros(size(rows) * kHidden * 2);
  b.hand_over = zeros(layout_.bytes());
  const std::int32_t blocks = std::max(options_.return_blocks, options_.ffn_servers);
  b.returned = zeros(layout_.return_bytes(blocks));
  b.logits = zeros(size(rows) * SliceModel::kVocabPadded * 4);
  b.drawn = zeros(size(rows) * sizeof(cuda::SampledRow));
  b.step = zeros(4);
  b.mismatches = zeros(4);

  std::vector<std::int32_t> table(size(rows * pages_of_sequence_)), lengths, positions, slots;
  std::iota(table.begin(), table.end(), m * static_cast<std::int32_t>(table.size()));
  std::shuffle(table.begin(), table.end(), std::mt19937(static_cast<std::uint32_t>(m + 1)));
  for (std::int32_t row = 0; row < rows; ++row) {
    lengths.push_back(options_.context - row * 37 % cuda::kDecodePageTokens);
    positions.push_back(lengths.back() - 1);
    slots.push_back(table[size(std::int64_t{row} * pages_of_sequence_ + positions.back() / 64)] * 64 +
                    positions.back() % 64);
  }
  b.table = DeviceMemory::of(table);
  b.lengths = DeviceMemory::of(lengths);
  b.positions = DeviceMemory::of(positions);
  b.slots = DeviceMemory::of(slots);
  const std::vector<std::int32_t> longest(size(rows), options_.context);
  b.work = cuda::ScheduledWork(longest, {.blocks = cuda::look_at_device().multiprocessors}, {});
  batches_.push_back(std::move(b));
}

cuda::NormQuantise AttentionSide::norm(std::int32_t m) const {
  const MicroBatch& b = batch(m);
  cuda::NormQuantise op{};
  op.residual = b.residual.as<float>();
  op.gain = gain_.as<float>();
  op.epsilon = kEpsilon;
  op.tiles = b.x.as<std::uint8_t>();
  op.scales = b.x_scales.as<float>();
  op.tile_rows = layout_.tile_rows();
  op.rows = options_.rows;
  op.columns = kHidden;
  return op;
}

void AttentionSide::add_returns(std::int32_t m, cuda::NormQuantise& op) const {
  op.delta = reinterpret_cast<const std::uint16_t*>(returned(m) + HandOverLayout::kReturnHeader);
  op.delta_stride = kHidden;
  op.deltas = options_.ffn_servers;
  op.delta_pitch = static_cast<std::int64_t>(layout_.return_block_bytes() / 2);
}

cuda::Fp8Gemm AttentionSide::product(const DeviceMemory& x, const DeviceMemory& x_scales, const DeviceMemory& weight,
                                     const DeviceMemory& scales, std::int32_t n, std::int32_t k) const {
  cuda::Fp8Gemm op{};
  op.x = x.as<std::uint8_t>();
  op.x_scales = x_scales.as<float>();
  op.x_rows = layout_.tile_rows();
  op.weight = weight.as<std::uint8_t>();
  op.weight_scales = scales.as<float>();
  op.experts = 1;
  op.rows_max = options_.rows;
  op.n = n;
  op.k = k;
  return op;
}

void AttentionSide::run_layer(std::int32_t layer, std::int32_t m, cuda::Stream stream) const {
  if (layer == 0)
    for (const SideOperator& op : head_operators(m)) op.run(stream);
  for (const SideOperator& op : layer_operators(layer, m)) op.run(stream);
}

std::vector<SideOperator> AttentionSide::layer_operators(std::int32_t layer, std::int32_t m) const {
  const Layer& w = layers_[static_cast<std::size_t>(layer)];
  const MicroBatch& b = batch(m);
  cuda::Fp8Gemm down = product(b.x, b.x_scales, w.down, w.down_scales, kDown, kHidden);
  down.out = b.down.as<std::uint16_t>();
  down.after_norm = {
      .squares = b.x_squares.as<float>(), .parts = cuda::NormQuantise::square_parts(kHidden), .epsilon = kEpsilon};
  down.before_norm = {.gain = gain_.as<float>(),
                      .columns = SliceModel::kQueryRank,
                      .tiles = b.up_x.as<std::uint8_t>(),
                      .scales = b.up_x_scales.as<float>(),
                      .squares = b.up_x_squares.as<float>()};
  cuda::Fp8Gemm up = product(b.up_x, b.up_x_scales, w.up, w.up_scales, kUp, SliceModel::kQueryRank);
  up.after_norm = {.squares = b.up_x_squares.as<float>(),
                   .parts = SliceModel::kQueryRank / cuda::Fp8Tile::kDepth,
                   .epsilon = kEpsilon};
  up.out = b.q.as<std::uint16_t>();
  cuda::Fp8Gemm o = product(b.o_x, b.o_x_scales, w.o, w.o_scales, kHidden, kUp);
  o.out = b.o.as<std::uint16_t>();
  const bool dense = options_.model.is_dense(layer);
  return {side_operator("norm-in", norm_in(layer, m)),
          side_operator("q-down-k-v", down),
          side_operator("q-up", up),
          {"rope-append", [=, this](cuda::Stream stream) { rotate_and_append(layer, m, stream); }},
          {"mfa-decode-fp8", [=, this](cuda::Stream stream) { attend(layer, m, stream); }},
          side_operator("o", o),
          side_operator("norm-out", norm_out(m)),
          {dense ? "seal" : "router", [=, this](cuda::Stream stream) { route(layer, m, stream); }}};
}

// From the last layer's return to the rows of the next step.
std::vector<SideOperator> AttentionSide::head_operators(std::int32_t m) const {
  const MicroBatch& b = batch(m);
  cuda::Fp8Gemm head = product(b.x, b.x_scales, head_, head_scales_, SliceModel::kVocabPadded, kHidden);
  head.out_f32 = b.logits.as<float>();
  head.out_stride = SliceModel::kVocabPadded;
  cuda::NormQuantise last = norm(m);
  add_returns(m, last);
  return {side_operator("norm-head", last),
          side_operator("head", head),
          {"sample-greedy", [=, this](cuda::Stream stream) { sample(m, stream); }},
          {"begin-step", [=, this](cuda::Stream stream) { begin_step(m, stream); }}};
}

cuda::NormQuantise AttentionSide::norm_in(std::int32_t layer, std::int32_t m) const {
  cuda::NormQuantise op = norm(m);
  op.squares = batch(m).x_squares.as<float>();
  if (layer > 0) add_returns(m, op);
  return op;
}

// Into the hand-over.
cuda::NormQuantise AttentionSide::norm_out(std::int32_t m) const {
  const MicroBatch& b = batch(m);
  cuda::NormQuantise op = norm(m);
  op.delta = b.o.as<std::uint16_t>();
  op.delta_stride = kHidden;
  op.tiles = reinterpret_cast<std::uint8_t*>(target(m));
  op.scales = reinterpret_cast<float*>(target(m) + layout_.scales_at());
  op.normed = b.normed.as<std::uint16_t>();
  return op;
}

std::uint8_t* AttentionSide::pages_of_layer(std::int32_t layer) const {
  return pages_.as<std::uint8_t>() + layer * pages_of_layer_ * cuda::MfaPage::kBytes;
}

void AttentionSide::rotate_and_append(std::int32_t layer, std::int32_t m, cuda::Stream stream) const {
  const MicroBatch& b = batch(m);
  const std::uint16_t* rows = b.down.as<std::uint16_t>();
  cuda::MfaPrepare prepare{};
  prepare.q_tiles = b.q_tiles.as<std::uint8_t>();
  prepare.q_scales = b.q_scales.as<float>();
  prepare.pages = pages_of_layer(layer);
  prepare.page_stride = cuda::MfaPage::kBytes;
  prepare.q = b.q.as<std::uint16_t>();
  prepare.k = rows + SliceModel::kQueryRank;
  prepare.v = rows + SliceModel::kQueryRank + kKeyValue;
  prepare.q_stride = kUp;
  prepare.k_stride = prepare.v_stride = kDown;
  prepare.bf16 = true;
  prepare.positions = b.positions.as<std::int32_t>();
  prepare.slots = b.slots.as<std::int32_t>();
  prepare.inv_freq = inv_freq_.as<float>();
  prepare.rows = options_.rows;
  cuda::run(prepare, stream);
}

void AttentionSide::attend(std::int32_t layer, std::int32_t m, cuda::Stream stream) const {
  const MicroBatch& b = batch(m);
  cuda::MfaDecode decode{};
  decode.out = b.attention.as<std::uint16_t>();
  decode.q_tiles = b.q_tiles.as<std::uint8_t>();
  decode.q_scales = b.q_scales.as<float>();
  decode.pages = pages_of_layer(layer);
  decode.page_stride = cuda::MfaPage::kBytes;
  decode.block_table = b.table.as<std::int32_t>();
  decode.blocks_max = pages_of_sequence_;
  decode.lengths = b.lengths.as<std::int32_t>();
  decode.scale = 1.f / 16;
  decode.work = b.work.work();
  decode.o_tiles = b.o_x.as<std::uint8_t>();
  decode.o_scales = b.o_x_scales.as<float>();
  decode.o_tile_rows = layout_.tile_rows();
  decode.sequences = options_.rows;
  decode.cache_is_settled = true;
  cuda::run(decode, stream);
}

// Router and seal, into the hand-over.
void AttentionSide::route(std::int32_t layer, std::int32_t m, cuda::Stream stream) const {
  const MicroBatch& b = batch(m);
  std::byte* to = target(m);
  const cuda::SealWrite seal{.seal = reinterpret_cast<cuda::Seal*>(to + layout_.seal_at()),
                             .value = {.layer = layer, .micro_batch = m, .rows = options_.rows},
                             .step = b.step.as<std::uint32_t>()};
  cuda::SealCheck check;
  if (layer > 0)
    check = {.seal = reinterpret_cast<const cuda::Seal*>(returned(m)),
             .expected = {.layer = layer - 1, .micro_batch = m, .rows = options_.rows},
             .step = b.step.as<std::uint32_t>(),
             .mismatches = b.mismatches.as<std::uint32_t>()};
  if (options_.model.is_dense(layer)) return cuda::run(cuda::SealHandOver{.seal = seal, .returned = check}, stream);
  cuda::run(cuda::RouteRows{.x = b.normed.as<std::uint16_t>(),
                            .weight = layers_[static_cast<std::size_t>(layer)].router.as<std::uint16_t>(),
                            .ids = reinterpret_cast<std::int32_t*>(to + layout_.ids_at()),
                            .weights = reinterpret_cast<float*>(to + layout_.weights_at()),
                            .rows = options_.rows,
                            .hidden = kHidden,
                            .experts = SliceModel::kExperts,
                            .top_k = SliceModel::kTopK,
                            .seal = seal,
                            .returned = check},
            stream);
}

void AttentionSide::sample(std::int32_t m, cuda::Stream stream) const {
  const MicroBatch& b = batch(m);
  cuda::SampleRows sample{};
  sample.logits = b.logits.as<float>();
  sample.stride = SliceModel::kVocabPadded;
  sample.rows = options_.rows;
  sample.vocab = SliceModel::kVocab;
  sample.found = b.drawn.as<cuda::SampledRow>();
  cuda::run(sample, stream);
}

void AttentionSide::begin_step(std::int32_t m, cuda::Stream stream) const {
  const MicroBatch& b = batch(m);
  cuda::run(cuda::GrowSequences{.lengths = b.lengths.as<std::int32_t>(),
                                .positions = b.positions.as<std::int32_t>(),
                                .slots = b.slots.as<std::int32_t>(),
                                .block_table = b.table.as<std::int32_t>(),
                                .blocks_max = pages_of_sequence_,
                                .rows = options_.rows,
                                .length_min = options_.context - cuda::kDecodePageTokens + 1,
                                .length_max = options_.context,
                                .step = b.step.as<std::uint32_t>()},
            stream);
  cuda::run(cuda::EmbedTokens{.tokens = b.drawn.as<cuda::SampledRow>(),
                              .table = embedding_.as<std::uint16_t>(),
                              .vocab = SliceModel::kVocab,
                              .residual = b.residual.as<float>(),
                              .rows = options_.rows,
                              .columns = kHidden},
            stream);
}

// Steps are counted where tokens are drawn, which is before the first layer of the first step.
void AttentionSide::restart() const {
  for (const MicroBatch& b : batches_) cuda::set_word(b.step.as<std::uint32_t>(), ~0u, nullptr);
}

double AttentionSide::layer_bytes() const {
  const double rows = options_.rows;
  return static_cast<double>(kProductsPerLayer) + rows * pages_of_sequence_ * cuda::MfaPage::kBytes +
         rows *
             (kHidden * (4. * 4 + 2 * options_.ffn_servers + 2 + 1 + 1 + 2 + 2) + kDown * 4. + kUp * (4. + 4 + 4 + 3));
}

double AttentionSide::layer_flops() const {
  return 2. * options_.rows * static_cast<double>(kProductsPerLayer) +
         4. * options_.rows * options_.context * SliceModel::kHeads * SliceModel::kHeadDim;
}

std::uint32_t AttentionSide::mismatches() const {
  std::uint32_t sum = 0;
  for (const MicroBatch& b : batches_) sum += b.mismatches.download<std::uint32_t>()[0];
  return sum;
}

void AttentionSide::check_tokens() const {
  for (std::size_t m = 0; m < batches_.size(); ++m) {
    const std::vector<cuda::SampledRow> rows = batches_[m].drawn.download<cuda::SampledRow>();
    for (std::size_t row = 0; row < rows.size(); ++row)
      if (rows[row].outcome != cuda::SampleOutcome::kDrawn || rows[row].id < 0 || rows[row].id >= SliceModel::kVocab)
        throw Error(ErrorCode::kInternal,
                    format("micro-batch {}, row {}: no token was drawn, the logits are not finite", m, row));
  }
}

}  // namespace tandem
