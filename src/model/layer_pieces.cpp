// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "model/layer_pieces.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/format.h"
#include "ops/f8_rows.h"

namespace tandem {

NormWeight load_norm(WeightReader& reader, const std::string& name, std::int64_t elements, Part part, float added) {
  return {reader.vector(part, name, elements, added), elements};
}

TokenTables load_token_tables(WeightReader& reader, const ModelConfig& config, CheckpointFormat format, float added) {
  const bool gguf = format == CheckpointFormat::kGguf;
  const Shape table{config.vocab, config.hidden};
  TokenTables tables;
  tables.embedding = reader.matrix(
      Part::kEmbedding, {{.name = gguf ? "token_embd.weight" : "model.embed_tokens.weight", .shape = table}});
  if (config.tied_head)
    reader.ignore("lm_head.weight");  // some files repeat the embedding under this name
  else
    tables.own_head = reader.matrix(Part::kHead, {{.name = gguf ? "output.weight" : "lm_head.weight", .shape = table}});
  tables.final_norm =
      load_norm(reader, gguf ? "output_norm.weight" : "model.norm.weight", config.hidden, Part::kNorm, added);
  return tables;
}

namespace {

bool multiplies_in_fp8(const Workspace& w, const Weight& weight) {
  return w.activations == Activations::kFp8 && w.backend.has_fp8_products(weight);
}

bool multiplies_in_int8(const Workspace& w, const Weight& weight) {
  return w.activations == Activations::kInt8 && w.backend.has_int8_products(weight);
}

// x itself, or rounded to FP8 in scratch memory. Int8 products round for themselves.
Tensor rounded(const Workspace& w, const Tensor& x) {
  if (w.activations != Activations::kFp8) return x;
  const Tensor codes = w.arena.f8(x.rows(), x.shape[1]), scales = w.arena.f32(x.rows(), f8_groups(x.shape[1]));
  const Tensor out = w.arena.f32(x.rows(), x.shape[1]);
  w.backend.run(QuantiseRows{codes, scales, x});
  w.backend.run(WidenRows{out, codes, scales});
  return out;
}

// out = x · weightᵀ where x is rounded already; to do it again changes nothing.
void multiply_rounded(const Workspace& w, const Tensor& out, const Tensor& x, const Weight& weight,
                      const KSlices& slices) {
  if (multiplies_in_fp8(w, weight))
    w.backend.run(Fp8MatMul{out, x, &weight, slices});
  else if (multiplies_in_int8(w, weight))
    w.backend.run(Int8MatMul{out, x, &weight, slices});
  else
    w.backend.run(MatMul{out, x, &weight, slices});
}

// The same for rows of experts.
void multiply_grouped(const Workspace& w, const Tensor& out, const Tensor& x, std::span<const Weight* const> experts,
                      const Tensor& offsets, const KSlices& slices) {
  if (std::ranges::all_of(experts, [&](const Weight* expert) { return multiplies_in_int8(w, *expert); }))
    w.backend.run(Int8GroupedMatMul{out, x, experts, offsets, slices});
  else
    w.backend.run(GroupedMatMul{out, x, experts, offsets, slices});
}

}  // namespace

void run_linear(const Workspace& w, const Tensor& out, const Tensor& x, const Weight& weight, const KSlices& slices) {
  Arena::Scope scope(w.arena);
  multiply_rounded(w, out, multiplies_in_fp8(w, weight) ? x : rounded(w, x), weight, slices);
}

std::size_t linear_scratch(std::int64_t rows, std::int64_t columns) {
  return scratch_bytes({rows * columns / 4 + 1, rows * f8_groups(columns), rows * columns});
}

void enter_layer(const Workspace& w, const Residual& residual, const NormWeight& norm, float eps, const Tensor& out) {
  if (residual.has_ffn)
    w.backend.run(AddRmsNorm{out, residual.stream, residual.ffn, norm.tensor(), eps});
  else
    w.backend.run(RmsNorm{out, residual.stream, norm.tensor(), eps});
}

void final_logits(const Workspace& w, const RowBatch& batch, const Residual& residual, const NormWeight& norm,
                  float eps, const Weight& head, const Tensor& logits) {
  const std::int64_t rows = batch.logit_rows.shape[0], hidden = residual.stream.shape[1];
  if (rows == 0) return;
  Arena::Scope scope(w.arena);
  const Tensor stream = w.arena.f32(rows, hidden), ffn = w.arena.f32(rows, hidden);
  w.backend.run(GatherRows{stream, residual.stream, batch.logit_rows});
  w.backend.run(GatherRows{ffn, residual.ffn, batch.logit_rows});
  w.backend.run(AddRmsNorm{stream, stream, ffn, norm.tensor(), eps});
  if (multiplies_in_int8(w, head))
    w.backend.run(Int8MatMul{logits, stream, &head, KSlices::whole(hidden)});
  else
    w.backend.run(MatMul{logits, stream, &head, KSlices::whole(hidden)});
}

GatedFfnNames projections(const std::string& prefix) {
  return {prefix + "gate_proj.weight", prefix + "up_proj.weight", prefix + "down_proj.weight"};
}

GatedFfn load_gated_ffn(WeightReader& reader, Part part, const GatedFfnNames& names, std::int64_t hidden,
                        std::int64_t width, int slice_first, int slice_count) {
  const std::int64_t granule = reader.slice_granule(names.down);
  const std::int64_t begin = width_slice_begin(width, granule, slice_first);
  const std::int64_t end = width_slice_begin(width, granule, slice_first + slice_count);
  const bool stacked = names.expert >= 0;
  const Shape in = stacked ? Shape{names.experts, width, hidden} : Shape{width, hidden};
  const Shape out = stacked ? Shape{names.experts, hidden, width} : Shape{hidden, width};
  GatedFfn ffn;
  ffn.width = end - begin;
  ffn.slices = width_slices(width, granule, slice_first, slice_count);
  ffn.gate_up = reader.matrix(
      part, {{.name = names.gate, .shape = in, .row_begin = begin, .row_end = end, .expert = names.expert},
             {.name = names.up, .shape = in, .row_begin = begin, .row_end = end, .expert = names.expert}});
  ffn.down = reader.matrix(
      part, {{.name = names.down, .shape = out, .column_begin = begin, .column_end = end, .expert = names.expert}});
  return ffn;
}

void run_gated_ffn(const Workspace& w, const GatedFfn& ffn, const Tensor& x, const Tensor& out, float limit) {
  Arena::Scope scope(w.arena);
  const Tensor gate_up = w.arena.f32(x.rows(), 2 * ffn.width), activated = w.arena.f32(x.rows(), ffn.width);
  multiply_rounded(w, gate_up, x, *ffn.gate_up, KSlices::whole(x.shape[1]));
  w.backend.run(SwiGlu{activated, gate_up, limit});
  run_linear(w, out, activated, *ffn.down, ffn.slices);
}

namespace {

// A worker without any column of its experts would be there for nothing.
void check_parts(const WeightReader& reader, const GatedFfnNames& names, std::int64_t width, std::int32_t slices) {
  const std::int64_t granule = reader.slice_granule(names.down);
  const std::int64_t blocks = (width + granule - 1) / granule, parts = KSlices::kCountMax / slices;
  if (blocks < parts)
    throw Error(
        ErrorCode::kUnsupported,
        format("{}: experts are {} wide in blocks of {}, which can be cut into {} parts, not into {} (--layout, "
               "split.width)",
               names.down, width, granule, blocks, parts));
}

}  // namespace

RoutedExperts load_routed_experts(WeightReader& reader, const ExpertNames& names_of, const ModelConfig& config,
                                  const FfnShare& share) {
  RoutedExperts layer;
  layer.begin = share.expert_begin;
  if (const std::int32_t count = share.expert_end - share.expert_begin; count > 0)
    reader.check_count(names_of(share.expert_begin).gate, count, "experts of a layer");
  for (std::int32_t e = share.expert_begin; e < share.expert_end; ++e) {
    check_parts(reader, names_of(e), config.expert_width, share.width_count);
    layer.experts.push_back(load_gated_ffn(reader, Part::kExperts, names_of(e), config.hidden, config.expert_width,
                                           share.width_first, share.width_count));
  }
  for (const GatedFfn& expert : layer.experts) {
    layer.gate_up.push_back(expert.gate_up.get());
    layer.down.push_back(expert.down.get());
  }
  return layer;
}

ExpertNames stacked_experts(GatedFfnNames names, std::int32_t experts) {
  names.experts = experts;
  return [names](std::int32_t expert) {
    GatedFfnNames one = names;
    one.expert = expert;
    return one;
  };
}

std::int64_t count_slots(const HandOver& hand_over, const FfnShare& share) {
  if (!hand_over.expert_ids) return 0;
  const auto* ids = hand_over.expert_ids.as<const std::int32_t>();
  std::int64_t count = 0;
  for (std::int64_t i = 0; i < hand_over.expert_ids.shape.elements(); ++i) count += share.owns(ids[i]);
  return count;
}

void run_routed_experts(const Workspace& w, const RoutedExperts& layer, const HandOver& hand_over, const Tensor& out,
                        float limit) {
  const std::int64_t count = out.rows(), hidden = hand_over.hidden.shape[1];
  if (count == 0) return;
  if (limit == 0 && multiplies_in_fp8(w, *layer.gate_up.front()) && multiplies_in_fp8(w, *layer.down.front()))
    return w.backend.run(Fp8Experts{.out = out,
                                    .x = hand_over.hidden,
                                    .expert_ids = hand_over.expert_ids,
                                    .expert_weights = hand_over.expert_weights,
                                    .gate_up = layer.gate_up,
                                    .down = layer.down,
                                    .begin = layer.begin});
  Arena::Scope scope(w.arena);
  const auto held = static_cast<std::int64_t>(layer.experts.size());
  const GroupByExpert group{.rows = w.arena.i32(count),
                            .outputs = w.arena.i32(count),
                            .weights = w.arena.f32(count, 1),
                            .offsets = w.arena.i32(held + 1),
                            .expert_ids = hand_over.expert_ids,
                            .expert_weights = hand_over.expert_weights,
                            .begin = layer.begin};
  const std::int64_t width = layer.experts.front().width;
  const Tensor x = w.arena.f32(count, hidden), gate_up = w.arena.f32(count, 2 * width);
  const Tensor activated = w.arena.f32(count, width), y = w.arena.f32(count, hidden);
  w.backend.run(group);
  w.backend.run(GatherRows{x, hand_over.hidden, group.rows});
  multiply_grouped(w, gate_up, x, layer.gate_up, group.offsets, KSlices::whole(hidden));
  w.backend.run(SwiGlu{activated, gate_up, limit});
  multiply_grouped(w, y, rounded(w, activated), layer.down, group.offsets, layer.experts.front().slices);
  w.backend.run(ScatterScaledRows{out, y, group.outputs, group.weights});
}

std::size_t ffn_scratch(const ModelConfig& c, std::int64_t rows_max) {
  const std::int64_t slots = rows_max * c.experts_per_token, width = std::max(c.ffn_width, c.shared_width);
  return scratch_bytes({slots, slots, slots, c.experts + 1, slots * c.hidden, slots * 2 * c.expert_width,
                        slots * c.expert_width, slots * c.hidden}) +
         scratch_bytes({rows_max * 2 * width, rows_max * width}) + linear_scratch(slots, c.expert_width) +
         linear_scratch(rows_max, width);
}

Router load_router(WeightReader& reader, const ModelConfig& config, const std::string& weight,
                   const std::string& bias) {
  Router router;
  router.weight = reader.matrix(Part::kRouter, {{.name = weight, .shape = {config.experts, config.hidden}}});
  if (config.router.bias) router.bias = reader.vector(Part::kRouter, bias, config.experts);
  return router;
}

void run_router(const Workspace& w, const Router& router, const ModelConfig& config, const HandOver& hand_over) {
  Arena::Scope scope(w.arena);
  const Tensor logits = w.arena.f32(hand_over.rows(), config.experts);
  w.backend.run(MatMul{logits, hand_over.hidden, router.weight.get(), KSlices::whole(config.hidden)});
  w.backend.run(
      SelectExperts{.expert_ids = hand_over.expert_ids,
                    .expert_weights = hand_over.expert_weights,
                    .logits = logits,
                    .renormalise = config.renormalise,
                    .score = config.router.score,
                    .bias = config.router.bias ? Tensor(router.bias.data(), DType::kF32, {config.experts}) : Tensor(),
                    .groups = config.router.groups,
                    .groups_kept = config.router.groups_kept,
                    .scale = config.router.scale});
}

void ignore_next_token_layers(WeightReader& reader, const ModelConfig& config) {
  for (std::int32_t i = 0; i < config.next_token_layers; ++i)
    reader.ignore("model.layers." + std::to_string(config.layers + i) + ".*");
}

void attend(const Workspace& w, std::int32_t layer, const RowBatch& batch, const ModelConfig& config, const Tensor& q,
            const Tensor& k, const Tensor& v, const Tensor& out) {
  const bool windowed = config.is_windowed(layer);
  KvCache* cache = windowed ? w.window_cache : w.cache;
  const std::int32_t place = config.kv_layer(layer);
  w.backend.run(AppendKv{k, v, windowed ? batch.window_slots : batch.slots, cache, place});
  w.backend.run(PagedAttention{.out = out,
                               .q = q,
                               .block_table = windowed ? batch.window_table : batch.block_table,
                               .sequences = batch.sequences,
                               .positions = batch.positions,
                               .cache = cache,
                               .layer = place,
                               .heads = config.heads_of(layer),
                               .scale = config.attention_factor / std::sqrt(static_cast<float>(config.head_dim)),
                               .context_tokens = windowed ? batch.window_tokens : batch.context_tokens,
                               .window = windowed ? config.window.tokens : 0});
}

}  // namespace tandem
