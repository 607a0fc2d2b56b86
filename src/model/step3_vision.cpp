// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Step-3's vision half, as in the published checkpoint:
//
//   embed    h = conv14(pixels) + position; before it four times the class row with its position
//   tower    h = h + n(Wo attention(Wqkv h));  h = h + n(W2 gelu(W1 h)), gelu(x) = x · sigmoid(1.702 x); norms after
//            their blocks, none at the end; every row sees every row
//   project  the class rows are dropped; conv 2x2 by 2; conv 3x3 by 2; a product: 1/16 of the patches are left
#include "model/step3_vision.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"
#include "base/format.h"
#include "image/crop_plan.h"
#include "model/config_reader.h"

namespace tandem {

// ---- hyper-parameters

namespace {

constexpr std::int32_t kDownsampling = 4;  // of a side, by both downsamplers

VisionConfig read_vision_config(const ConfigReader& model, const ConfigReader& vision, std::int32_t vocab) {
  VisionConfig v;
  // Missing keys have the values of the published weights (which the class defaults of the published code are not).
  v.hidden = static_cast<std::int32_t>(vision.integer_or("hidden_size", 1792, 1, kWidthMax));
  v.output_hidden = static_cast<std::int32_t>(vision.integer_or("output_hidden_size", 4096, 1, kWidthMax / 2));
  v.layers = static_cast<std::int32_t>(vision.integer_or("num_hidden_layers", 63, 1, kLayersMax));
  v.heads = static_cast<std::int32_t>(vision.integer_or("num_attention_heads", 16, 1, kHeadsMax));
  if (v.hidden % v.heads != 0) vision.invalid("num_attention_heads", format("a divisor of hidden_size {}", v.hidden));
  v.mlp_width = static_cast<std::int32_t>(vision.integer_or("intermediate_size", 15360, 1, kWidthMax));
  v.image_side = static_cast<std::int32_t>(vision.integer_or("image_size", 728, 1, 1 << 14));
  v.patch_side = static_cast<std::int32_t>(vision.integer_or("patch_size", 14, 1, 1 << 14));
  for (const std::int32_t side : {v.image_side, kCropSide})
    if (side % (v.patch_side * kDownsampling) != 0)
      vision.invalid("patch_size", format("a side that divides {} a multiple of {} times", side, kDownsampling));
  if (vision.integer_or("num_channels", 3, 1, kWidthMax) != 3) vision.unsupported("num_channels", "3");
  if (vision.text_or("hidden_act", "quick_gelu") != "quick_gelu") vision.unsupported("hidden_act", "quick_gelu");
  // layer_norm_eps is not read: the published code has 1e-6 whatever the file says.

  // The published file sets what the code's defaults (a stride of 1, a bias) do not.
  if (model.integer_or("understand_projector_stride", 1, 1, 64) != 2)
    model.unsupported("understand_projector_stride", "2");
  v.projector_bias = model.boolean_or("projector_bias", true);
  v.image_token = static_cast<std::int32_t>(model.integer_or("image_token_id", 128001, 0, vocab - 1));
  v.start_token = model.text_or("im_start_token", "<im_start>");
  v.patch_token = model.text_or("im_patch_token", "<im_patch>");
  v.end_token = model.text_or("im_end_token", "<im_end>");
  const auto rows = [&](std::int32_t side) {
    const std::int32_t left = side / v.patch_side / kDownsampling;
    return left * left;
  };
  v.whole_tokens = static_cast<std::int32_t>(model.integer_or("image_token_len", 169, 1, kContextMax));
  v.crop_tokens = static_cast<std::int32_t>(model.integer_or("patch_token_len", 81, 1, kContextMax));
  if (v.whole_tokens != rows(v.image_side)) model.invalid("image_token_len", format("{}", rows(v.image_side)));
  if (v.crop_tokens != rows(kCropSide)) model.invalid("patch_token_len", format("{}", rows(kCropSide)));
  return v;
}

}  // namespace

ModelConfig read_step3_vl_config(const ConfigReader& config) {
  for (const char* key : {"text_config", "vision_config"})
    if (!config.has(key) || !config.raw(key).is_object()) config.invalid(key, "an object");
  const ConfigReader text(config.raw("text_config"), config.what() + ": text_config");
  const ConfigReader vision(config.raw("vision_config"), config.what() + ": vision_config");
  ModelConfig c = read_step3_text_config(text);
  c.architecture = "step3_vl";
  c.block_fp8 = c.block_fp8 || read_block_fp8(config);
  if (config.has("eos_token_id")) c.eos_ids = config.ids("eos_token_id", c.vocab);
  c.vision = read_vision_config(config, vision, c.vocab);
  return c;
}

// ---- weights

Step3Vision::Step3Vision(const ModelConfig& config, WeightReader& reader)
    : config_(*config.vision), text_hidden_(config.hidden), layers_(static_cast<std::size_t>(config_.layers)) {
  const VisionConfig& c = config_;
  const std::int64_t h = c.hidden, o = c.output_hidden;
  patches_ =
      load_linear(reader, Part::kVision, "vision_model.embeddings.patch_embedding", {h, 3, c.patch_side, c.patch_side});
  load_positions(reader);
  for (std::int32_t i = 0; i < c.layers; ++i) {
    Layer& layer = layers_[static_cast<std::size_t>(i)];
    const std::string prefix = format("vision_model.transformer.layers.{}.", i);
    const auto load_vision_norm = [&](const std::string& name) {
      const auto part = [&](const char* which) {
        return NormWeight{reader.vector(Part::kVision, prefix + name + which, h), h};
      };
      return Norm{part(".weight"), part(".bias")};
    };
    layer.qkv = load_linear(reader, Part::kVision, prefix + "self_attn.qkv_proj", {3 * h, h});
    layer.out = load_linear(reader, Part::kVision, prefix + "self_attn.out_proj", {h, h});
    layer.attention_norm = load_vision_norm("layer_norm1");
    layer.fc1 = load_linear(reader, Part::kVision, prefix + "mlp.fc1", {c.mlp_width, h});
    layer.fc2 = load_linear(reader, Part::kVision, prefix + "mlp.fc2", {h, c.mlp_width});
    layer.mlp_norm = load_vision_norm("layer_norm2");
  }
  downsampler_ = load_linear(reader, Part::kProjector, "vit_downsampler", {o, h, 2, 2});
  downsampler2_ = load_linear(reader, Part::kProjector, "vit_downsampler2", {2 * o, o, 3, 3});
  const Shape projector{config.hidden, 2 * o};
  if (c.projector_bias)
    projector_ = load_linear(reader, Part::kProjector, "vit_large_projector", projector);
  else
    projector_.weight = reader.matrix(Part::kProjector, {{.name = "vit_large_projector.weight", .shape = projector}});
  weight_bytes_ = reader.bytes_packed();
}

Step3Vision::Linear Step3Vision::load_linear(WeightReader& reader, Part part, const std::string& prefix,
                                             const Shape& shape) {
  return {reader.matrix(part, {{.name = prefix + ".weight", .shape = shape}}),
          {reader.vector(part, prefix + ".bias", shape[0]), shape[0]}};
}

void Step3Vision::load_positions(WeightReader& reader) {
  const std::int64_t h = config_.hidden;
  const std::int32_t grid = config_.grid();
  const std::string prefix = "vision_model.embeddings.";
  const std::vector<float> first = reader.numbers(Part::kVision, prefix + "class_embedding", {1, h});
  const std::vector<float> position =
      reader.numbers(Part::kVision, prefix + "position_embedding.weight", {1 + std::int64_t{grid} * grid, h});
  if (position.empty()) return;  // declaring
  for (const std::int32_t to : {grid, kCropSide / config_.patch_side}) {
    std::vector<float> rows;
    for (std::int64_t i = 0; i < kClassRows; ++i)
      for (std::size_t c = 0; c < first.size(); ++c) rows.push_back(first[c] + position[c]);
    const std::vector<float> resized = resize_table(position.data() + h, grid, to, h);
    rows.insert(rows.end(), resized.begin(), resized.end());
    positions_.push_back({to, reader.constant(rows)});
  }
}

namespace {

// The cubic kernel with a = -0.5.
double cubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

struct Taps {
  std::int32_t first;
  std::vector<float> weights;  // they sum to 1
};

std::vector<Taps> cubic_taps(std::int32_t from, std::int32_t to) {
  const double scale = static_cast<double>(from) / to, widening = std::max(scale, 1.0);
  std::vector<Taps> taps;
  for (std::int32_t i = 0; i < to; ++i) {
    const double center = (i + 0.5) * scale, support = 2 * widening;
    const std::int32_t first = std::max(static_cast<std::int32_t>(center - support + 0.5), 0);
    const std::int32_t last = std::min(static_cast<std::int32_t>(center + support + 0.5), from);
    std::vector<double> weights;
    for (std::int32_t j = first; j < last; ++j) weights.push_back(cubic((j - center + 0.5) / widening));
    const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
    Taps& t = taps.emplace_back(Taps{first, {}});
    for (const double weight : weights) t.weights.push_back(static_cast<float>(weight / total));
  }
  return taps;
}

// Resizes the middle axis of [outer, from, columns].
std::vector<float> resize_axis(const std::vector<float>& in, std::int32_t from, std::int32_t to, std::int64_t outer,
                               std::int64_t columns) {
  const std::vector<Taps> taps = cubic_taps(from, to);
  std::vector<float> out(static_cast<std::size_t>(outer * to * columns), 0.0f);
  for (std::int64_t o = 0; o < outer; ++o)
    for (std::int32_t i = 0; i < to; ++i)
      for (std::size_t j = 0; j < taps[static_cast<std::size_t>(i)].weights.size(); ++j) {
        const Taps& t = taps[static_cast<std::size_t>(i)];
        const float* source =
            &in[static_cast<std::size_t>((o * from + t.first + static_cast<std::int64_t>(j)) * columns)];
        float* sum = &out[static_cast<std::size_t>((o * to + i) * columns)];
        for (std::int64_t c = 0; c < columns; ++c) sum[c] += t.weights[j] * source[c];
      }
  return out;
}

}  // namespace

std::vector<float> resize_table(const float* table, std::int32_t from, std::int32_t to, std::int64_t columns) {
  std::vector<float> rows(table, table + std::int64_t{from} * from * columns);
  if (from == to) return rows;
  rows = resize_axis(rows, from, to, from, columns);    // along x
  return resize_axis(rows, from, to, 1, to * columns);  // along y
}

// ---- sizes

Tensor Step3Vision::Positions::tensor(std::int64_t columns) const {
  return Tensor(rows.data(), DType::kF32, {kClassRows + std::int64_t{grid} * grid, columns});
}

const Step3Vision::Positions& Step3Vision::positions_for(std::int64_t patches) const {
  for (const Positions& p : positions_)
    if (std::int64_t{p.grid} * p.grid == patches) return p;
  TANDEM_CHECK(false, format("the tower takes no picture of {} patches", patches));
}

std::int64_t Step3Vision::stream_rows(const VisionConfig& config, std::int32_t side) {
  const std::int64_t grid = side / config.patch_side;
  return kClassRows + grid * grid;
}

std::int64_t Step3Vision::rows_of(const VisionConfig& config, std::int32_t side) {
  const std::int64_t left = side / config.patch_side / kDownsampling;
  return left * left;
}

std::size_t Step3Vision::scratch_bytes(const VisionConfig& config, std::int64_t text_hidden) {
  const std::int32_t side = std::max(config.image_side, kCropSide);
  const std::int64_t rows = stream_rows(config, side), h = config.hidden, o = config.output_hidden;
  const std::size_t view = tandem::scratch_bytes({std::int64_t{3} * side * side, rows_of(config, side) * text_hidden});
  const std::size_t stream = tandem::scratch_bytes({rows * h});
  const std::size_t patches = tandem::scratch_bytes({rows * 3 * config.patch_side * config.patch_side});
  const std::size_t layer = std::max(tandem::scratch_bytes({rows * 3 * h, rows * h, rows * h}),
                                     tandem::scratch_bytes({rows * config.mlp_width, rows * h}));
  const std::size_t projector =
      tandem::scratch_bytes({rows / 4 * 4 * h, rows / 4 * o, rows / 16 * 9 * o, rows / 16 * 2 * o});
  return view + stream + std::max({patches, layer, projector});
}

// ---- the way of a picture

void Step3Vision::run_linear(const Workspace& w, const Linear& linear, const Tensor& x, const Tensor& out) {
  w.backend.run(MatMul{out, x, linear.weight.get(), KSlices::whole(x.shape[1])});
  if (linear.bias.elements == 0) return;
  const Tensor bias(linear.bias.values.data(), DType::kF32, {1, linear.bias.elements});
  w.backend.run(AddRows{out, bias});
}

void Step3Vision::encode(const Workspace& w, const Tensor& pixels, const Tensor& out) const {
  Arena::Scope scope(w.arena);
  const auto side = static_cast<std::int32_t>(std::lround(std::sqrt(static_cast<double>(pixels.rows()))));
  const Tensor stream = w.arena.f32(stream_rows(side), config_.hidden);
  embed(w, pixels, stream);
  tower(w, stream);
  project(w, stream, out);
}

void Step3Vision::embed(const Workspace& w, const Tensor& pixels, const Tensor& stream) const {
  Arena::Scope scope(w.arena);
  const std::int64_t h = config_.hidden, patches = stream.rows() - kClassRows;
  const Positions& p = positions_for(patches);
  const Tensor windows = w.arena.f32(patches, std::int64_t{3} * config_.patch_side * config_.patch_side);
  const Tensor class_rows = stream.slice_rows(0, kClassRows), body = stream.slice_rows(kClassRows, patches);
  w.backend.run(
      Im2Col{windows, pixels, p.grid * config_.patch_side, config_.patch_side, config_.patch_side, /*padding=*/0});
  run_linear(w, patches_, windows, body);
  w.backend.run(AddRows{body, p.tensor(h).slice_rows(kClassRows, patches)});
  w.backend.copy(class_rows.data, p.rows.data(), static_cast<std::size_t>(kClassRows * h) * sizeof(float));
}

void Step3Vision::tower(const Workspace& w, const Tensor& stream) const {
  for (const Layer& layer : layers_) {
    attention(w, layer, stream);
    mlp(w, layer, stream);
  }
}

void Step3Vision::attention(const Workspace& w, const Layer& layer, const Tensor& stream) const {
  Arena::Scope scope(w.arena);
  const std::int64_t rows = stream.rows(), h = config_.hidden;
  const Tensor qkv = w.arena.f32(rows, 3 * h), attended = w.arena.f32(rows, h), out = w.arena.f32(rows, h);
  run_linear(w, layer.qkv, stream, qkv);
  w.backend.run(FullAttention{.out = attended,
                              .q = qkv.slice_columns(0, h),
                              .k = qkv.slice_columns(h, h),
                              .v = qkv.slice_columns(2 * h, h),
                              .heads = config_.heads,
                              .scale = 1.0f / std::sqrt(static_cast<float>(h / config_.heads))});
  run_linear(w, layer.out, attended, out);
  const Norm& norm = layer.attention_norm;
  w.backend.run(AddLayerNorm{stream, out, norm.weight.tensor(), norm.bias.tensor(), config_.norm_eps});
}

void Step3Vision::mlp(const Workspace& w, const Layer& layer, const Tensor& stream) const {
  Arena::Scope scope(w.arena);
  const Tensor wide = w.arena.f32(stream.rows(), config_.mlp_width), out = w.arena.f32(stream.rows(), config_.hidden);
  run_linear(w, layer.fc1, stream, wide);
  w.backend.run(QuickGelu{wide, wide});
  run_linear(w, layer.fc2, wide, out);
  const Norm& norm = layer.mlp_norm;
  w.backend.run(AddLayerNorm{stream, out, norm.weight.tensor(), norm.bias.tensor(), config_.norm_eps});
}

void Step3Vision::project(const Workspace& w, const Tensor& stream, const Tensor& out) const {
  Arena::Scope scope(w.arena);
  const std::int64_t patches = stream.rows() - kClassRows, h = config_.hidden, o = config_.output_hidden;
  const std::int32_t grid = positions_for(patches).grid, half = grid / 2;
  const Tensor pairs = w.arena.f32(patches / 4, 4 * h), features = w.arena.f32(patches / 4, o);
  const Tensor windows = w.arena.f32(patches / 16, 9 * o), wide = w.arena.f32(patches / 16, 2 * o);
  w.backend.run(Im2Col{pairs, stream.slice_rows(kClassRows, patches), grid, /*kernel=*/2, /*stride=*/2, /*padding=*/0});
  run_linear(w, downsampler_, pairs, features);
  w.backend.run(Im2Col{windows, features, half, /*kernel=*/3, /*stride=*/2, /*padding=*/1});
  run_linear(w, downsampler2_, windows, wide);
  run_linear(w, projector_, wide, out);
}

std::unique_ptr<Step3Vision> make_step3_vision(const ModelConfig& config, WeightReader& reader) {
  return std::make_unique<Step3Vision>(config, reader);
}

}  // namespace tandem
