// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Llama:  x ← x + Wo · GQA(RoPE(Wq n(x)), RoPE(Wk n(x)), Wv n(x));   x ← x + Wdown (silu(Wgate n(x)) · Wup n(x))
#include "model/llama.h"

#include <algorithm>

#include "base/format.h"
#include "model/decoder_config.h"
#include "model/layer_pieces.h"

namespace tandem {

// ---- hyper-parameters

ModelConfig read_llama_config(const ConfigReader& config) {
  ModelConfig c = read_decoder_config(config);
  c.architecture = "llama";
  return c;
}

ModelConfig read_llama_gguf_config(const Checkpoint& checkpoint, const ConfigReader& config) {
  if (config.integer_or("llama.expert_count", 0, 0, kExpertsMax) > 0) config.unsupported("llama.expert_count", "0");
  ModelConfig c = read_decoder_gguf_config(checkpoint, config, "llama");
  c.architecture = "llama";
  return c;
}

// ---- weights

namespace {

struct LayerNames {
  std::string input_norm, q, k, v, o, post_norm;
  GatedFfnNames ffn;
};

LayerNames names_of(CheckpointFormat format, std::int32_t layer) {
  if (format == CheckpointFormat::kGguf) {
    const std::string p = tandem::format("blk.{}.", layer);
    return {p + "attn_norm.weight",
            p + "attn_q.weight",
            p + "attn_k.weight",
            p + "attn_v.weight",
            p + "attn_output.weight",
            p + "ffn_norm.weight",
            {p + "ffn_gate.weight", p + "ffn_up.weight", p + "ffn_down.weight"}};
  }
  const std::string p = tandem::format("model.layers.{}.", layer);
  const std::string a = p + "self_attn.", m = p + "mlp.";
  return {p + "input_layernorm.weight",
          a + "q_proj.weight",
          a + "k_proj.weight",
          a + "v_proj.weight",
          a + "o_proj.weight",
          p + "post_attention_layernorm.weight",
          projections(m)};
}

// GGUF stores the rows of a head as rotary pairs (2m, 2m + 1); ours are (m, m + dim/2), as in the original checkpoints.
std::vector<std::int32_t> unpaired_rows(std::int32_t heads, std::int32_t dim) {
  std::vector<std::int32_t> order;
  for (std::int32_t h = 0; h < heads; ++h)
    for (std::int32_t half = 0; half < 2; ++half)
      for (std::int32_t m = 0; m < dim / 2; ++m) order.push_back(h * dim + 2 * m + half);
  return order;
}

struct Layer {
  NormWeight input_norm, post_norm;
  std::unique_ptr<Weight> qkv;  // [(heads + 2·kv_heads)·dim, hidden]
  std::unique_ptr<Weight> o;    // [hidden, heads·dim]
  GatedFfn ffn;
};

class Llama final : public Model {
 public:
  Llama(const ModelConfig& config, CheckpointFormat names, const ModelShare& share, WeightReader& reader);

  void embed(const Workspace& w, const RowBatch& batch, const Residual& residual) const override {
    w.backend.run(EmbedRows{residual.stream, tables_.embedding.get(), batch.ids});
  }
  void attention(const Workspace& w, std::int32_t layer, const RowBatch& batch, const Residual& residual,
                 const HandOver& hand_over) const override;
  void route(const Workspace&, std::int32_t, const HandOver&) const override {}
  void experts(const Workspace& w, std::int32_t layer, const HandOver& hand_over,
               const FfnOutput& output) const override {
    if (output.partial) run_gated_ffn(w, layers_[layer].ffn, hand_over.hidden, output.partial);
  }
  void head(const Workspace& w, const RowBatch& batch, const Residual& residual, const Tensor& logits) const override {
    final_logits(w, batch, residual, tables_.final_norm, config().norm_eps, tables_.head(), logits);
  }
  std::size_t attention_scratch_bytes(std::int64_t rows_max, std::int64_t logits_max) const override {
    const ModelConfig& c = config();
    return scratch_bytes({rows_max * (c.heads + 2 * c.kv_heads) * c.head_dim, rows_max * c.heads * c.head_dim,
                          rows_max * c.hidden, logits_max * c.hidden, logits_max * c.hidden}) +
           linear_scratch(rows_max, std::max<std::int64_t>(c.hidden, c.heads * c.head_dim));
  }
  std::size_t ffn_scratch_bytes(std::int64_t rows_max) const override { return ffn_scratch(config(), rows_max); }

 private:
  void load_attention(WeightReader& reader, const LayerNames& names, CheckpointFormat format, Layer& layer) const;

  TokenTables tables_;
  Buffer inv_freq_;  // f32
  std::vector<Layer> layers_;
};

Llama::Llama(const ModelConfig& config, CheckpointFormat names, const ModelShare& share, WeightReader& reader)
    : Model(config),
      inv_freq_(reader.constant(rope_inv_freq(config.rope))),
      layers_(static_cast<std::size_t>(config.layers)) {
  if (share.attention) tables_ = load_token_tables(reader, config, names);
  for (std::int32_t i = 0; i < config.layers; ++i) {
    const LayerNames n = names_of(names, i);
    if (share.attention) load_attention(reader, n, names, layers_[i]);
    if (share.ffn && share.experts.slice_count > 0)
      layers_[i].ffn = load_gated_ffn(reader, Part::kDenseFfn, n.ffn, config.hidden, config.ffn_width,
                                      share.experts.slice_first, share.experts.slice_count);
  }
  weight_bytes_ = reader.bytes_packed();
  reader.ignore("*.rotary_emb.inv_freq");
  reader.ignore("rope_freqs.weight");  // read with the configuration
}

void Llama::load_attention(WeightReader& reader, const LayerNames& names, CheckpointFormat format, Layer& layer) const {
  const ModelConfig& c = config();
  const std::int64_t q_rows = c.heads * c.head_dim, kv_rows = c.kv_heads * c.head_dim;
  WeightName q{.name = names.q, .shape = {q_rows, c.hidden}}, k{.name = names.k, .shape = {kv_rows, c.hidden}};
  if (format == CheckpointFormat::kGguf) {
    q.row_order = unpaired_rows(c.heads, c.head_dim);
    k.row_order = unpaired_rows(c.kv_heads, c.head_dim);
  }
  layer.input_norm = load_norm(reader, names.input_norm, c.hidden);
  layer.qkv = reader.matrix(Part::kAttention, {q, k, {.name = names.v, .shape = {kv_rows, c.hidden}}});
  layer.o = reader.matrix(Part::kAttention, {{.name = names.o, .shape = {c.hidden, q_rows}}});
  layer.post_norm = load_norm(reader, names.post_norm, c.hidden);
}

// ---- attention

void Llama::attention(const Workspace& w, std::int32_t index, const RowBatch& batch, const Residual& residual,
                      const HandOver& hand_over) const {
  const ModelConfig& c = config();
  const Layer& layer = layers_[index];
  const std::int64_t rows = batch.rows(), q_columns = c.heads * c.head_dim, kv_columns = c.kv_heads * c.head_dim;
  const Tensor inv_freq(inv_freq_.data(), DType::kF32, {c.rope.dim / 2});
  Arena::Scope scope(w.arena);
  const Tensor qkv = w.arena.f32(rows, q_columns + 2 * kv_columns), attended = w.arena.f32(rows, q_columns);
  const Tensor out = w.arena.f32(rows, c.hidden);
  const Tensor q = qkv.slice_columns(0, q_columns), k = qkv.slice_columns(q_columns, kv_columns);

  enter_layer(w, residual, layer.input_norm, c.norm_eps, hand_over.hidden);
  run_linear(w, qkv, hand_over.hidden, *layer.qkv, KSlices::whole(c.hidden));
  w.backend.run(Rope{q, batch.positions, inv_freq, c.head_dim, 0, false, c.rope.magnitude});
  w.backend.run(Rope{k, batch.positions, inv_freq, c.head_dim, 0, false, c.rope.magnitude});
  attend(w, index, batch, c, q, k, qkv.slice_columns(q_columns + kv_columns, kv_columns), attended);
  run_linear(w, out, attended, *layer.o, KSlices::whole(q_columns));
  w.backend.run(AddRmsNorm{hand_over.hidden, residual.stream, out, layer.post_norm.tensor(), c.norm_eps});
}

}  // namespace

std::unique_ptr<Model> make_llama(const ModelConfig& config, CheckpointFormat names, const ModelShare& share,
                                  WeightReader& reader) {
  return std::make_unique<Llama>(config, names, share, reader);
}

}  // namespace tandem
