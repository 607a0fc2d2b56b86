// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Tiny checkpoints written for a test, with weights drawn from their names: the same tensor has the same values in
// every checkpoint that has it, so that two checkpoints differ in what the test changes and in nothing else.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "checkpoint/checkpoint.h"
#include "tests/checkpoint/temporary_folder.h"

namespace tandem {

// A tensor to be written, as f32 unless dtype says bf16, f8_e4m3 or i32. Its values come from its name unless given.
struct SyntheticTensor {
  std::string name;
  Shape shape;
  DType dtype = DType::kF32;
  std::string values_of;  // when not empty: the name whose values it has
  float scale = 1;        // of every value drawn
  std::vector<float> values;
};
using SyntheticTensors = std::vector<SyntheticTensor>;

// Matrices are scaled so that a product keeps the size of its input; vectors are norms, near one.
std::vector<float> synthetic_values(const SyntheticTensor& tensor);

// The one called name, to be changed.
SyntheticTensor& tensor_named(SyntheticTensors& tensors, std::string_view name);
void remove_tensor(SyntheticTensors& tensors, std::string_view name);

// config.json and model.safetensors.
void write_model(const TemporaryFolder& folder, const Json& config, const SyntheticTensors& tensors);

// A checkpoint in a folder of its own, which goes when it does.
class SyntheticCheckpoint {
 public:
  SyntheticCheckpoint(const Json& config, const SyntheticTensors& tensors);
  const Checkpoint& operator*() const { return *checkpoint_; }
  const Checkpoint* operator->() const { return checkpoint_.get(); }

 private:
  TemporaryFolder folder_;
  std::unique_ptr<Checkpoint> checkpoint_;
};

// Stores the linear layers as E4M3 with a scale for each block of 128 × 128.
void make_block_fp8(Json& config, SyntheticTensors& tensors);
// The same values as f32.
void widen_block_fp8(Json& config, SyntheticTensors& tensors);

// Two layers, four heads over two kv heads, FFN width 80: 80 fills only three of the eight slices.
Json llama_config();
SyntheticTensors llama_tensors(const Json& config);

// Three layers of which the one in the middle has six experts of width 33 and a shared expert of 64.
Json step3_config();
SyntheticTensors step3_tensors(const Json& config);

// Three layers with normalised query and key heads, five heads on one kv head; with experts the one in the middle has
// six of width 33, and no shared one.
Json qwen3_config();
Json qwen3_moe_config();
SyntheticTensors qwen3_tensors(const Json& config);

// Three layers, the first dense, then eight experts of width 33 in four groups and a shared one; five heads whose query
// and key have 10 plain and 6 rotated elements, whose values have 7, from a latent of 20.
Json deepseek_v3_config();
SyntheticTensors deepseek_v3_tensors(const Json& config);

// What a model of this configuration asks a safetensors file for, as f32.
SyntheticTensors tensors_for(const Json& config);

// A GGUF file: metadata by key (integers as u32, fractions as f32, truth values, strings) and tensors, of f32 values
// unless they come as the bytes of another type.
struct GgufTensor {
  std::string name;
  Shape shape;
  std::vector<float> values;
  DType dtype = DType::kF32;
  std::vector<std::byte> bytes;  // of dtype, when that is not f32
};
std::string write_gguf(const TemporaryFolder& folder, const Json& metadata, const std::vector<GgufTensor>& tensors);

}  // namespace tandem
