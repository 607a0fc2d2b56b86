// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Step-3's eyes: squares of pixels in, rows that stand in for token embeddings out. It knows no text and no requests,
// so that it can run anywhere: on a thread, a machine or a role of its own. Immutable after load, like Model.
#pragma once

#include <memory>
#include <vector>

#include "model/layer_pieces.h"
#include "model/model.h"

namespace tandem {

class Step3Vision {
 public:
  explicit Step3Vision(const ModelConfig& config, WeightReader& reader);

  const VisionConfig& config() const { return config_; }
  std::int64_t hidden() const { return text_hidden_; }  // of a visual row

  // All of it: pixels f32 [side², 3] of a square of one of the two sides to out [rows_of(side), hidden], both in memory
  // of the backend.
  void encode(const Workspace& w, const Tensor& pixels, const Tensor& out) const;

  // Its steps. A stream has kClassRows rows before those of the patches.
  static constexpr std::int64_t kClassRows = 4;
  std::int64_t stream_rows(std::int32_t side) const { return stream_rows(config_, side); }
  static std::int64_t stream_rows(const VisionConfig& config, std::int32_t side);
  std::int64_t rows_of(std::int32_t side) const { return rows_of(config_, side); }
  static std::int64_t rows_of(const VisionConfig& config, std::int32_t side);
  void embed(const Workspace& w, const Tensor& pixels, const Tensor& stream) const;
  void tower(const Workspace& w, const Tensor& stream) const;
  void project(const Workspace& w, const Tensor& stream, const Tensor& out) const;

  // Of encode, with room for its pixels and rows.
  std::size_t scratch_bytes() const { return scratch_bytes(config_, text_hidden_); }
  static std::size_t scratch_bytes(const VisionConfig& config, std::int64_t text_hidden);
  std::int64_t weight_bytes() const { return weight_bytes_; }

 private:
  // A product with a bias.
  struct Linear {
    std::unique_ptr<Weight> weight;
    NormWeight bias;
  };
  struct Norm {
    NormWeight weight, bias;
  };
  struct Layer {
    Linear qkv, out, fc1, fc2;
    Norm attention_norm, mlp_norm;
  };
  // What is added to the stream of a grid: class and position rows.
  struct Positions {
    std::int32_t grid = 0;
    Buffer rows;  // f32 [kClassRows + grid², hidden]
    Tensor tensor(std::int64_t columns) const;
  };

  static Linear load_linear(WeightReader& reader, Part part, const std::string& prefix, const Shape& shape);
  static void run_linear(const Workspace& w, const Linear& linear, const Tensor& x, const Tensor& out);
  void load_positions(WeightReader& reader);
  const Positions& positions_for(std::int64_t patches) const;
  void attention(const Workspace& w, const Layer& layer, const Tensor& stream) const;
  void mlp(const Workspace& w, const Layer& layer, const Tensor& stream) const;

  VisionConfig config_;
  std::int64_t text_hidden_;
  std::int64_t weight_bytes_ = 0;
  Linear patches_;
  std::vector<Positions> positions_;  // of the whole picture and of a crop
  std::vector<Layer> layers_;
  Linear downsampler_, downsampler2_, projector_;  // the projector's bias may be missing
};

std::unique_ptr<Step3Vision> make_step3_vision(const ModelConfig& config, WeightReader& reader);

// Throws Error{kUnsupported} when the checkpoint's model sees nothing.
std::unique_ptr<Step3Vision> load_vision(const Checkpoint& checkpoint, Backend& backend,
                                         const LoadListener& listener = {});
// What that reads; nothing where the model sees nothing.
PartSizes measure_vision(const Checkpoint& checkpoint);
// What whoever runs it takes of a memory: its weights, as stored, and scratch. 0 where the model sees nothing.
std::int64_t vision_memory_bytes(const Checkpoint& checkpoint);

// A table of from² rows as a picture, resized to to² by the cubic filter with antialias (a = -0.5), edges as they are.
std::vector<float> resize_table(const float* table, std::int32_t from, std::int32_t to, std::int64_t columns);

}  // namespace tandem
