// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "slice/ffn_side.h"

#include <algorithm>
#include <utility>

#include "base/format.h"
#include "ops/cuda/gemm/fp8_quantise.h"
#include "ops/cuda/peer/bulk_copies.h"
#include "ops/cuda/peer/recorded_work.h"
#include "ops/cuda/peer/stream_flag.h"
#include "ops/cuda/split/add_partials.h"
#include "ops/cuda/split/decode_step.h"
#include "slice/side_memory.h"

namespace tandem {

namespace {

using cuda::DeviceMemory;

constexpr std::int32_t kHidden = SliceModel::kHidden;

// Of the part of its width that is here.
std::int64_t expert_bytes(const SliceLoad& load) {
  return std::int64_t{3} * kHidden * SliceModel::kExpertWidth / load.width_parts;
}
std::int64_t dense_bytes(const SliceLoad& load) {
  return std::int64_t{3} * kHidden * SliceModel::kDenseWidth / load.width_parts;
}

std::size_t size(std::int64_t n) {
  return static_cast<std::size_t>(n);
}

// The slice's own tokens choose as they like, so an expert may get a few rows more than the tables say.
std::int32_t row_stride_of(const SliceLoad& load, std::int32_t expert_rows_max) {
  const std::int32_t most = std::max(expert_rows_max + load.rows, load.rail_blocks * load.shared_rows);
  return static_cast<std::int32_t>(cuda::Fp8Tile::whole_tiles(most));
}

}  // namespace

std::int64_t FfnSide::weight_bytes(const FfnSideOptions& o) {
  const SliceLoad load = load_of(o.deployment, o.rows);
  const std::int64_t dense = o.model.dense_layers(), routed = o.model.layers - dense;
  return routed * (load.experts + 1) * expert_bytes(load) + dense * dense_bytes(load);
}

std::int64_t FfnSide::row_bytes(const FfnSideOptions& o) {
  const SliceLoad load = load_of(o.deployment, o.rows);
  const std::int64_t rows = std::int64_t{load.experts + 1} * row_stride_of(load, 2 * load.expert_rows_mean);
  return o.micro_batches *
         (rows * (kHidden * 6 + SliceModel::kDenseWidth / load.width_parts * 2) +
          std::int64_t{load.rail_blocks} * load.rows * kHidden * 3 + load.exchanged_rows * kHidden * 2 +
          std::int64_t{load.tokens} * SliceModel::kTopK * 4 * o.model.layers);
}

FfnSide::FfnSide(const FfnSideOptions& options) : options_(options), load_(load_of(options.deployment, options.rows)) {
  need_room("FFN", format("{} experts of {} layers", load_.experts + 1, options.model.layers), bytes_needed(options));
  make_weights();
  make_rows();
}

void FfnSide::resize(const SliceBatch& batch) {
  batches_.clear();
  options_.rows = batch.rows;
  options_.micro_batches = batch.micro_batches;
  load_ = load_of(options_.deployment, batch.rows);
  need_room("FFN", format("{} tokens", load_.tokens), row_bytes(options_));
  make_rows();
}

void FfnSide::make_rows() {
  layout_ = {.rows = options_.rows};
  draw_routing();
  row_stride_ = row_stride_of(load_, expert_rows_max_);
  for (std::int32_t m = 0; m < options_.micro_batches; ++m) make_batch(m);
  tables_.clear();
  cuda::synchronise();
}

void FfnSide::draw_routing() {
  tables_.clear();  // those of rows that had no room
  expert_rows_max_ = 0;
  for (std::int32_t m = 0; m < options_.micro_batches; ++m) {
    std::vector<RoutingTable>& of_batch = tables_.emplace_back();
    for (std::int32_t l = 0; l < options_.model.layers; ++l) {
      if (options_.model.is_dense(l)) {
        of_batch.emplace_back();
        continue;
      }
      of_batch.push_back(routing_table(options_.deployment, load_.tokens - load_.rows, options_.zipf_exponent,
                                       static_cast<std::uint64_t>(1000 * m + l + 1)));
      expert_rows_max_ = std::max(expert_rows_max_, of_batch.back().rows_max);
    }
  }
}

std::int32_t FfnSide::width(std::int32_t layer) const {
  return (options_.model.is_dense(layer) ? SliceModel::kDenseWidth : SliceModel::kExpertWidth) / load_.width_parts;
}

void FfnSide::make_weights() {
  const std::int32_t experts = load_.experts + 1;
  for (std::int32_t l = 0; l < options_.model.layers; ++l) {
    const auto seed = static_cast<std::uint32_t>(10 * l + 5);
    const bool dense = options_.model.is_dense(l);
    Layer layer;
    layer.gate_up = random_tiles(dense ? 1 : experts, 2 * width(l), kHidden, seed);
    layer.down = random_tiles(dense ? 1 : experts, kHidden, width(l), seed + 1);
    layers_.push_back(std::move(layer));
  }
  const std::int32_t expert = SliceModel::kExpertWidth / load_.width_parts,
                     dense = SliceModel::kDenseWidth / load_.width_parts;
  gate_up_scales_ = tile_scales(experts, 2 * expert, kHidden, 1);
  down_scales_ = tile_scales(experts, kHidden, expert, 1);
  dense_up_scales_ = tile_scales(1, 2 * dense, kHidden, 1);
  dense_down_scales_ = tile_scales(1, kHidden, dense, 1);
}

void FfnSide::make_batch(std::int32_t m) {
  const std::int32_t experts = load_.experts + 1;
  const std::int64_t rows = std::int64_t{experts} * row_stride_;
  MicroBatch b;
  b.rail = zeros(layout_.bytes() * size(load_.rail_blocks));
  b.returned = zeros(layout_.return_bytes(load_.own_blocks));
  b.arrived = random_tiles(1, std::max(rows, load_.exchange_out_bytes / kHidden + 1), kHidden,
                           static_cast<std::uint32_t>(50 + m));
  b.arrived_scales = repeated_f32(rows * kHidden / 128, 1.f / 64);
  b.arrived_results = zeros(size(std::max<std::int64_t>(rows, load_.exchanged_rows)) * kHidden * 2);
  if (load_.width_parts > 1) b.partial = zeros(size(load_.rail_blocks) * layout_.return_block_bytes());
  b.weights = repeated_f32(std::int64_t{load_.rail_blocks} * load_.rows * SliceModel::kTopK, .1f);
  std::vector<std::int32_t> begin;
  for (std::int32_t e = 0; e < experts; ++e) begin.push_back(e * row_stride_);
  b.row_begin = DeviceMemory::of(begin);
  b.source = zeros(size(rows) * 4);
  b.place = zeros(size(load_.rail_blocks) * size(load_.rows) * (SliceModel::kTopK + 1) * 4);
  b.x = zeros(size(rows) * kHidden);
  b.x_scales = zeros(size(rows) * kHidden / 32);
  b.hidden = zeros(size(std::max(rows * SliceModel::kExpertWidth, std::int64_t{row_stride_} * SliceModel::kDenseWidth) /
                        load_.width_parts));
  b.hidden_scales = zeros(b.hidden.bytes() / 32);
  b.out = zeros(size(rows) * kHidden * 2);
  b.scratch = zeros(cuda::Fp8Gemm::kScratchBytes);
  b.step = zeros(4);
  b.mismatches = zeros(4);
  for (const RoutingTable& table : tables_[size(m)])
    b.routing.push_back(
        {.ids = DeviceMemory::of(table.ids), .row_count = zeros(size(experts) * 4), .first = table.first});
  fill_rail(b);
  batches_.push_back(std::move(b));
}

// Rows of attention GPUs that are not there, and until it hands over those of the one that is.
void FfnSide::fill_rail(const MicroBatch& b) const {
  const DeviceMemory x = random_f32(std::int64_t{load_.rows} * kHidden, 77);
  for (std::int32_t block = 0; block < load_.rail_blocks; ++block) {
    std::byte* at = b.rail.as<std::byte>() + size(block) * layout_.bytes();
    cuda::run(cuda::QuantiseTiles{.tiles = reinterpret_cast<std::uint8_t*>(at),
                                  .scales = reinterpret_cast<float*>(at + layout_.scales_at()),
                                  .x = x.as<float>(),
                                  .bf16 = false,
                                  .rows = load_.rows,
                                  .columns = kHidden,
                                  .tile_rows = layout_.tile_rows()},
              nullptr);
  }
  const DeviceMemory ids =
      DeviceMemory::of(routing_table(options_.deployment, load_.rows, options_.zipf_exponent, 3).ids);
  cuda::copy_between_devices(b.rail.as<std::byte>() + layout_.ids_at(), ids.as<std::byte>(), ids.bytes(), nullptr);
  cuda::synchronise();
}

cuda::ExpertShare FfnSide::share(std::int32_t layer, std::int32_t m) const {
  if (options_.model.is_dense(layer)) return {.shared_rows = load_.shared_rows, .row_stride = row_stride_};
  const std::int32_t first = batch(m).routing[size(layer)].first;
  return {.first = first,
          .count = load_.experts,
          .shared_rows = load_.shared_rows,
          .server_first = first / load_.server_experts * load_.server_experts,
          .server_count = load_.server_experts,
          .row_stride = row_stride_};
}

cuda::ExpertTokens FfnSide::tokens(std::int32_t layer) const {
  const bool dense = options_.model.is_dense(layer);
  return {.rail_blocks = load_.rail_blocks,
          .rows = load_.rows,
          .others = dense ? 0 : load_.tokens - load_.rail_blocks * load_.rows,
          .top_k = dense ? 0 : SliceModel::kTopK};
}

// Rows of dense layers go round where every GPU has a part of the width.
bool FfnSide::exchanges(std::int32_t layer) const {
  return load_.width_parts > 1 || !options_.model.is_dense(layer);
}

// What goes out is whatever the last products left: the bytes count. By a kernel, and the two after it follow at once:
// a copy engine would be done while products have all multiprocessors, and each of the two would wait for some.
void FfnSide::exchange_rows(std::int32_t layer, std::int32_t m, cuda::Stream stream) const {
  const MicroBatch& b = batch(m);
  cuda::BulkCopies op;
  if (peer_.out != nullptr && exchanges(layer)) {
    op.pieces[0] = {peer_.out, b.out.as<std::byte>(), load_.exchange_out_bytes};
    op.pieces[1] = {b.arrived.as<std::byte>(), peer_.rows_in, load_.exchange_out_bytes};
  }
  op.pieces[2] = {peer_.others, peer_.for_others, peer_.others_bytes};
  cuda::run(op, stream);
}

// By copy engines: the next products begin meanwhile, and the sums come in when the first of them has ended at the
// latest.
void FfnSide::exchange_results(std::int32_t layer, std::int32_t m, cuda::Stream stream) const {
  const std::size_t bytes = size(load_.exchange_back_bytes);
  if (peer_.out == nullptr || bytes == 0 || !exchanges(layer)) return;
  const MicroBatch& b = batch(m);
  cuda::fork_stream(stream, beside_.get());
  const DeviceMemory& out = load_.width_parts > 1 ? b.partial : b.out;
  cuda::copy_between_devices(peer_.out, out.as<std::byte>(), bytes, stream);
  cuda::copy_between_devices(b.arrived_results.as<std::byte>(), peer_.results_in, bytes, beside_.get());
  cuda::join_stream(stream, beside_.get());
}

void FfnSide::plan_rows(std::int32_t layer, std::int32_t m, cuda::Stream stream) const {
  const MicroBatch& b = batch(m);
  const std::byte* first = b.rail.as<std::byte>();
  cuda::run(cuda::PlanExpertRows{.share = share(layer, m),
                                 .tokens = tokens(layer),
                                 .first_ids = reinterpret_cast<const std::int32_t*>(first + layout_.ids_at()),
                                 .ids = b.routing[size(layer)].ids.as<std::int32_t>(),
                                 .row_count = b.routing[size(layer)].row_count.as<std::int32_t>(),
                                 .source = b.source.as<std::int32_t>(),
                                 .place = b.place.as<std::int32_t>(),
                                 .arrived_rows = load_.arrived_rows,
                                 .hand_over = {.seal = reinterpret_cast<const cuda::Seal*>(first + layout_.seal_at()),
                                               .expected = {.layer = layer, .micro_batch = m, .rows = load_.rows},
                                               .step = b.step.as<std::uint32_t>(),
                                               .mismatches = b.mismatches.as<std::uint32_t>()}},
            stream);
}

void FfnSide::bring_rows(std::int32_t layer, std::int32_t m, cuda::Stream stream) const {
  const MicroBatch& b = batch(m);
  cuda::run(cuda::GatherExpertRows{.share = share(layer, m),
                                   .tokens = tokens(layer),
                                   .row_count = b.routing[size(layer)].row_count.as<std::int32_t>(),
                                   .source = b.source.as<std::int32_t>(),
                                   .rail = b.rail.as<std::uint8_t>(),
                                   .rail_block_bytes = static_cast<std::int64_t>(layout_.bytes()),
                                   .arrived = {.tiles = b.arrived.as<std::uint8_t>(),
                                               .scales = b.arrived_scales.as<float>(),
                                               .rows = std::int64_t{load_.experts + 1} * row_stride_},
                                   .rail_rows = layout_.tile_rows(),
                                   .tiles = b.x.as<std::uint8_t>(),
                                   .scales = b.x_scales.as<float>(),
                                   .columns = kHidden},
            stream);
}

// Of whole experts: the sums of its rail's tokens, for the attention GPUs. Of a part of their width: a part of the sums
// of all of the server's tokens.
void FfnSide::add_up(std::int32_t layer, std::int32_t m, cuda::Stream stream) const {
  const MicroBatch& b = batch(m);
  const std::byte* first = b.rail.as<std::byte>();
  const bool partial = load_.width_parts > 1;
  std::byte* out = partial ? b.partial.as<std::byte>() : returned(m) + HandOverLayout::kReturnHeader;
  cuda::run(cuda::CombineExpertRows{.tokens = tokens(layer),
                                    .place = b.place.as<std::int32_t>(),
                                    .first_weights = reinterpret_cast<const float*>(first + layout_.weights_at()),
                                    .weights = b.weights.as<float>(),
                                    .own = b.out.as<std::uint16_t>(),
                                    .arrived = b.arrived_results.as<std::uint16_t>(),
                                    .out = reinterpret_cast<std::uint16_t*>(out),
                                    .out_block_stride = static_cast<std::int64_t>(layout_.return_block_bytes() / 2),
                                    .columns = kHidden,
                                    .seal = partial ? cuda::SealWrite{} : seal(layer, m)},
            stream);
}

cuda::SealWrite FfnSide::seal(std::int32_t layer, std::int32_t m) const {
  return {.seal = reinterpret_cast<cuda::Seal*>(returned(m)),
          .value = {.layer = layer, .micro_batch = m, .rows = load_.rows},
          .step = batch(m).step.as<std::uint32_t>()};
}

void FfnSide::add_partials(std::int32_t layer, std::int32_t m, cuda::Stream stream) const {
  const MicroBatch& b = batch(m);
  cuda::run(cuda::AddPartials{.own = b.partial.as<std::uint16_t>(),
                              .arrived = b.arrived_results.as<std::uint16_t>(),
                              .out = reinterpret_cast<std::uint16_t*>(returned(m) + HandOverLayout::kReturnHeader),
                              .neighbours = load_.width_parts - 1,
                              .rows = load_.own_blocks * load_.rows,
                              .columns = kHidden,
                              .seal = seal(layer, m)},
            stream);
}

cuda::Fp8Gemm FfnSide::gate_up(std::int32_t layer, std::int32_t m) const {
  const MicroBatch& b = batch(m);
  const Layer& w = layers_[size(layer)];
  const bool dense = options_.model.is_dense(layer);
  const std::int32_t experts = dense ? 1 : load_.experts + 1;
  cuda::Fp8Gemm up{};
  up.x = b.x.as<std::uint8_t>();
  up.x_scales = b.x_scales.as<float>();
  up.x_rows = std::int64_t{experts} * row_stride_;
  up.weight = w.gate_up.as<std::uint8_t>();
  up.weight_scales = (dense ? dense_up_scales_ : gate_up_scales_).as<float>();
  up.row_begin = b.row_begin.as<std::int32_t>();
  up.row_count = b.routing[size(layer)].row_count.as<std::int32_t>();
  up.experts = experts;
  up.rows_max = dense ? load_.rail_blocks * load_.shared_rows : row_stride_;
  up.rows_usual = dense ? 0 : load_.expert_rows_mean;
  up.scratch = b.scratch.as<std::byte>();
  up.n = 2 * width(layer);
  up.k = kHidden;
  up.hidden = b.hidden.as<std::uint8_t>();
  up.hidden_scales = b.hidden_scales.as<float>();
  return up;
}

cuda::Fp8Gemm FfnSide::down(std::int32_t layer, std::int32_t m) const {
  const bool dense = options_.model.is_dense(layer);
  cuda::Fp8Gemm down = gate_up(layer, m);
  down.x = down.hidden;
  down.x_scales = down.hidden_scales;
  down.weight = layers_[size(layer)].down.as<std::uint8_t>();
  down.weight_scales = (dense ? dense_down_scales_ : down_scales_).as<float>();
  down.n = kHidden;
  down.k = width(layer);
  down.hidden = nullptr;
  down.hidden_scales = nullptr;
  down.out = batch(m).out.as<std::uint16_t>();
  return down;
}

void FfnSide::gather(std::int32_t layer, std::int32_t m, cuda::Stream stream) const {
  exchange_rows(layer, m, stream);
  plan_rows(layer, m, stream);
  bring_rows(layer, m, stream);
}

void FfnSide::multiply_up(std::int32_t layer, std::int32_t m, cuda::Stream stream) const {
  cuda::run(gate_up(layer, m), stream);
}

void FfnSide::multiply_down(std::int32_t layer, std::int32_t m, cuda::Stream stream) const {
  cuda::run(down(layer, m), stream);
}

void FfnSide::combine(std::int32_t layer, std::int32_t m, cuda::Stream stream) const {
  const bool partial = load_.width_parts > 1;
  if (partial) add_up(layer, m, stream);
  exchange_results(layer, m, stream);
  partial ? add_partials(layer, m, stream) : add_up(layer, m, stream);
}

std::vector<SideOperator> FfnSide::layer_operators(std::int32_t layer, std::int32_t m) const {
  using cuda::Stream;
  if (options_.model.is_dense(layer))
    return {{"dense-plan-rows", [=, this](Stream stream) { plan_rows(layer, m, stream); }},
            {"dense-gather", [=, this](Stream stream) { bring_rows(layer, m, stream); }},
            side_operator("dense-gate-up", gate_up(layer, m)),
            side_operator("dense-down", down(layer, m)),
            {"dense-combine", [=, this](Stream stream) { add_up(layer, m, stream); }}};
  return {{"exchange-rows", [=, this](Stream stream) { exchange_rows(layer, m, stream); }},
          {"plan-rows", [=, this](Stream stream) { plan_rows(layer, m, stream); }},
          {"gather", [=, this](Stream stream) { bring_rows(layer, m, stream); }},
          side_operator("gate-up", gate_up(layer, m)),
          side_operator("down", down(layer, m)),
          {"exchange-results", [=, this](Stream stream) { exchange_results(layer, m, stream); }},
          {"combine", [=, this](Stream stream) { add_up(layer, m, stream); }}};
}

void FfnSide::end_step(std::int32_t m, cuda::Stream stream) const {
  cuda::count_step(batch(m).step.as<std::uint32_t>(), stream);
}

void FfnSide::restart() const {
  for (const MicroBatch& b : batches_) cuda::set_word(b.step.as<std::uint32_t>(), 0, nullptr);
}

double FfnSide::rows_of_layer() const {
  return static_cast<double>(load_.experts) * load_.expert_rows_mean +
         static_cast<double>(load_.rail_blocks) * load_.shared_rows;
}

double FfnSide::layer_bytes() const {
  const double results = static_cast<double>(load_.rail_blocks) * load_.rows;
  const double width = SliceModel::kExpertWidth / load_.width_parts;
  return static_cast<double>(expert_bytes(load_)) * (load_.experts + 1) +
         rows_of_layer() * (kHidden * 7. + width * 2.) + results * kHidden * 2. +
         2. * static_cast<double>(load_.exchange_out_bytes + load_.exchange_back_bytes);
}

double FfnSide::layer_flops() const {
  return 2. * rows_of_layer() * static_cast<double>(expert_bytes(load_));
}

std::uint32_t FfnSide::mismatches() const {
  std::uint32_t sum = 0;
  for (const MicroBatch& b : batches_) sum += b.mismatches.download<std::uint32_t>()[0];
  return sum;
}

}  // namespace tandem
