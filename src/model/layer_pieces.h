// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Pieces that layers of several architectures are made of: functions over weights and tensors, no classes to inherit.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "model/model.h"

namespace tandem {

struct NormWeight {
  Buffer values;
  std::int64_t elements = 0;
  Tensor tensor() const { return Tensor(values.data(), DType::kF32, {elements}); }
};
// part: kAttention for norms inside the attention, which the published parameter counts reckon to it.
// added: 1 for models whose norms weigh with 1 + what is stored.
NormWeight load_norm(WeightReader& reader, const std::string& name, std::int64_t elements, Part part = Part::kNorm,
                     float added = 0);

// What takes tokens in, and what makes logits of rows.
struct TokenTables {
  std::unique_ptr<Weight> embedding;  // [vocab, hidden]
  std::unique_ptr<Weight> own_head;   // [vocab, hidden]; null: tied to the embedding
  NormWeight final_norm;

  const Weight& head() const { return own_head ? *own_head : *embedding; }
};
// Under the names of either format, which are the same in all models. added: as in load_norm.
TokenTables load_token_tables(WeightReader& reader, const ModelConfig& config, CheckpointFormat format,
                              float added = 0);

// out = x · weightᵀ, x rounded as the workspace says. What takes tokens in (embedding), chooses experts or makes logits
// is no linear layer in this sense; logits are made with inputs of eight bits, too.
void run_linear(const Workspace& w, const Tensor& out, const Tensor& x, const Weight& weight, const KSlices& slices);
// Scratch that it needs for inputs of this many elements.
std::size_t linear_scratch(std::int64_t rows, std::int64_t columns);

// The start of a layer: stream += ffn of the layer before (if there is one), out = norm(stream).
void enter_layer(const Workspace& w, const Residual& residual, const NormWeight& norm, float eps, const Tensor& out);

// Final norm and output head for the rows that need logits.
void final_logits(const Workspace& w, const RowBatch& batch, const Residual& residual, const NormWeight& norm,
                  float eps, const Weight& head, const Tensor& logits);

// down(silu(gate(x)) · up(x)); x is rounded already, since it came that way over the hand-over. A worker may hold a
// subtree of the width's slices.
struct GatedFfn {
  std::unique_ptr<Weight> gate_up;  // [2·width, hidden]
  std::unique_ptr<Weight> down;     // [hidden, width]
  std::int64_t width = 0;           // of this share
  KSlices slices;
};

// Names of the three matrices of a gated FFN; expert as in WeightName.
struct GatedFfnNames {
  std::string gate, up, down;
  std::int64_t expert = -1;
  std::int64_t experts = 0;  // length of the leading axis when expert ≥ 0
};

// As safetensors files call them: gate_proj, up_proj and down_proj behind a prefix.
GatedFfnNames projections(const std::string& prefix);

// Slices [first, first + count) of the width.
GatedFfn load_gated_ffn(WeightReader& reader, Part part, const GatedFfnNames& names, std::int64_t hidden,
                        std::int64_t width, int slice_first, int slice_count);
// limit: of SwiGlu.
void run_gated_ffn(const Workspace& w, const GatedFfn& ffn, const Tensor& x, const Tensor& out, float limit = 0);

// The experts of one routed layer that a worker holds, or its slices of their width: ids [begin, begin +
// gate_up.size()).
struct RoutedExperts {
  std::int32_t begin = 0;
  std::vector<GatedFfn> experts;
  std::vector<const Weight*> gate_up, down;  // of experts, as GroupedMatMul wants them
};
// The names of one expert's matrices, stacked with those of the others or by themselves.
using ExpertNames = std::function<GatedFfnNames(std::int32_t expert)>;
// Throws Error{kUnsupported} where the width has fewer blocks than it is to be cut into parts, or the backend cannot
// multiply by so many experts at once.
RoutedExperts load_routed_experts(WeightReader& reader, const ExpertNames& names_of, const ModelConfig& config,
                                  const FfnShare& share);
// All experts on the leading axis of three tensors.
ExpertNames stacked_experts(GatedFfnNames names, std::int32_t experts);
// Rows to experts, experts, weighting: out rows (of the slices that are held) are in order of (row, slot) over the
// slots whose expert is held here.
void run_routed_experts(const Workspace& w, const RoutedExperts& layer, const HandOver& hand_over, const Tensor& out,
                        float limit = 0);
// How many rows that makes.
std::int64_t count_slots(const HandOver& hand_over, const FfnShare& share);

// Scratch of the FFN half for rows_max rows: routed, shared and dense parts.
std::size_t ffn_scratch(const ModelConfig& config, std::int64_t rows_max);

// What chooses experts.
struct Router {
  std::unique_ptr<Weight> weight;  // [experts, hidden]
  Buffer bias;                     // f32 [experts]; empty: none
};
Router load_router(WeightReader& reader, const ModelConfig& config, const std::string& weight, const std::string& bias);
// Fills hand_over's ids and weights from its hidden rows.
void run_router(const Workspace& w, const Router& router, const ModelConfig& config, const HandOver& hand_over);

// Layers behind the model's own guess further tokens: the file may hold them, nobody reads them.
void ignore_next_token_layers(WeightReader& reader, const ModelConfig& config);

// Stores k and v, rotates nothing, attends: out = attention(q over the cache). v has no data where it is in k.
void attend(const Workspace& w, std::int32_t layer, const RowBatch& batch, const ModelConfig& config, const Tensor& q,
            const Tensor& k, const Tensor& v, const Tensor& out);

}  // namespace tandem
