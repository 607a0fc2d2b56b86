// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// From a checkpoint to a model: which architecture, whether everything is there, then the weights.
#include <algorithm>

#include "base/error.h"
#include "base/format.h"
#include "model/deepseek_v3.h"
#include "model/llama.h"
#include "model/model.h"
#include "model/qwen3.h"
#include "model/read_ahead.h"
#include "model/step3_text.h"
#include "model/step3_vision.h"
#include "model/step3p5.h"
#include "model/tensor_list.h"
#include "ops/weight.h"

namespace tandem {

namespace {

std::unique_ptr<Model> make(const ModelConfig& config, const Checkpoint& checkpoint, const ModelShare& share,
                            WeightReader& reader) {
  if (config.block_fp8) reader.accept_block_fp8();
  if (config.architecture == "deepseek_v3") return make_deepseek_v3(config, checkpoint.format(), share, reader);
  if (config.architecture == "llama") return make_llama(config, checkpoint.format(), share, reader);
  if (config.architecture == "qwen3" || config.architecture == "qwen3_moe")
    return make_qwen3(config, checkpoint.format(), share, reader);
  if (config.architecture == "step3_text" || config.architecture == "step3_vl")
    return make_step3_text(config, share, reader);
  if (config.architecture == "step3p5") return make_step3p5(config, share, reader);
  throw Error(ErrorCode::kUnsupported, "no model file for architecture " + config.architecture);
}

ModelShare everything(const ModelConfig& config) {
  return {.attention = true, .ffn = true, .experts = {0, config.experts, 0, KSlices::kCountMax}};
}

// What a share needs, without reading any of it.
WeightReader declared(const ModelConfig& config, const Checkpoint& checkpoint, const ModelShare& share,
                      AssumedPrecision assumed = AssumedPrecision::kBf16) {
  WeightReader reader(checkpoint, assumed);
  make(config, checkpoint, share, reader);
  return reader;
}

WeightReader declared_whole(const ModelConfig& config, const Checkpoint& checkpoint,
                            AssumedPrecision assumed = AssumedPrecision::kBf16) {
  WeightReader reader = declared(config, checkpoint, everything(config), assumed);
  if (config.vision) make_step3_vision(config, reader);
  return reader;
}

}  // namespace

std::vector<ListedTensor> list_tensors(const Checkpoint& description) {
  const ModelConfig config = read_config(description);
  const AssumedPrecision precision = config.block_fp8 ? AssumedPrecision::kFp8 : AssumedPrecision::kBf16;
  const WeightReader reader = declared_whole(config, description, precision);
  std::vector<ListedTensor> tensors;
  for (std::size_t i = 0; i < reader.roles().size(); ++i) {
    const RequiredTensor& required = reader.requirements().required[i];
    const TensorRole& role = reader.roles()[i];
    const bool may_be_fp8 = std::ranges::find(required.dtypes, DType::kF8E4M3) != required.dtypes.end();
    const bool is_f32 =
        WeightReader::is_scale(required.name) || (role.part == Part::kRouter && required.shape.rank == 1);
    const DType dtype = is_f32 ? DType::kF32 : config.block_fp8 && may_be_fp8 ? DType::kF8E4M3 : DType::kBF16;
    tensors.push_back({required.name, required.shape, dtype, role});
  }
  return tensors;
}

PartSizes measure_share(const Checkpoint& checkpoint, const ModelShare& share, AssumedPrecision assumed) {
  return declared(read_config(checkpoint), checkpoint, share, assumed).parts();
}

PartSizes measure_parts(const Checkpoint& checkpoint, AssumedPrecision assumed) {
  const ModelConfig config = read_config(checkpoint);
  const WeightReader reader = declared_whole(config, checkpoint, assumed);
  if (checkpoint.has_weights()) check_tensors(reader.requirements(), checkpoint.tensors(), checkpoint.path());
  return reader.parts();
}

std::unique_ptr<Model> load_model(const Checkpoint& checkpoint, const ModelShare& share, Backend& backend,
                                  const LoadListener& listener) {
  const ModelConfig config = read_config(checkpoint);
  check_tensors(declared_whole(config, checkpoint).requirements(), checkpoint.tensors(), checkpoint.path());
  ReadAhead ahead(reading_order(checkpoint, declared(config, checkpoint, share), share),
                  [&](const Stretch& s) { checkpoint.file(*s.tensor).prefetch(s.tensor->offset + s.offset, s.bytes); });
  WeightReader reader(checkpoint, backend, [&](std::int64_t bytes) {
    ahead.advance(bytes);
    if (listener) listener(bytes);
  });
  std::unique_ptr<Model> model = make(config, checkpoint, share, reader);
  backend.synchronise();
  return model;
}

std::unique_ptr<Step3Vision> load_vision(const Checkpoint& checkpoint, Backend& backend, const LoadListener& listener) {
  const ModelConfig config = read_config(checkpoint);
  if (!config.vision) throw Error(ErrorCode::kUnsupported, checkpoint.path() + ": the model sees no pictures");
  check_tensors(declared_whole(config, checkpoint).requirements(), checkpoint.tensors(), checkpoint.path());
  WeightReader reader(checkpoint, backend, listener);
  std::unique_ptr<Step3Vision> vision = make_step3_vision(config, reader);
  backend.synchronise();
  return vision;
}

std::int64_t vision_memory_bytes(const Checkpoint& checkpoint) {
  const ModelConfig config = read_config(checkpoint);
  if (!config.vision) return 0;
  return total_bytes(measure_vision(checkpoint)) +
         static_cast<std::int64_t>(Step3Vision::scratch_bytes(*config.vision, config.hidden));
}

PartSizes measure_vision(const Checkpoint& checkpoint) {
  const ModelConfig config = read_config(checkpoint);
  WeightReader reader(checkpoint);
  if (config.vision) make_step3_vision(config, reader);
  return reader.parts();
}

}  // namespace tandem
