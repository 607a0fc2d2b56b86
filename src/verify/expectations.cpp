// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "verify/expectations.h"

#include <cstring>
#include <filesystem>
#include <numeric>

#include "base/error.h"
#include "base/format.h"
#include "base/json.h"
#include "checkpoint/mapped_file.h"
#include "checkpoint/safetensors.h"

namespace tandem {

namespace {

namespace fs = std::filesystem;

// The tensors of one safetensors file, read by name and type.
class Recording {
 public:
  explicit Recording(const std::string& path)
      : file_(MappedFile::open(path)), header_(parse_safetensors(file_.bytes(), path)) {}

  const TensorInfo* find(const std::string& name) const {
    for (const TensorInfo& info : header_.tensors)
      if (info.name == name) return &info;
    return nullptr;
  }
  template <class T>
  std::vector<T> values(const std::string& name, DType dtype, const Shape& shape) const {
    const TensorInfo* info = find(name);
    if (!info) throw Error(ErrorCode::kInvalidData, format("{}: tensor {} is missing", file_.path(), name));
    if (info->dtype != dtype || info->shape != shape)
      throw Error(ErrorCode::kInvalidData,
                  format("{}: {} is {} {}, expected {} {}", file_.path(), name, info->type_name, to_string(info->shape),
                         tandem::name(dtype), to_string(shape)));
    std::vector<T> values(static_cast<std::size_t>(shape.elements()));
    std::memcpy(values.data(), file_.bytes(info->offset, info->bytes).data(), info->bytes);
    return values;
  }
  Shape shape(const std::string& name) const {
    const TensorInfo* info = find(name);
    if (!info) throw Error(ErrorCode::kInvalidData, format("{}: tensor {} is missing", file_.path(), name));
    return info->shape;
  }
  // Names of the form prefix<number>suffix, as numbers.
  std::vector<std::int32_t> numbers(const std::string& prefix, const std::string& suffix) const {
    std::vector<std::int32_t> found;
    for (const TensorInfo& info : header_.tensors)
      if (info.name.starts_with(prefix) && info.name.ends_with(suffix))
        found.push_back(std::atoi(info.name.c_str() + prefix.size()));
    return found;
  }

 private:
  MappedFile file_;
  SafetensorsHeader header_;
};

LogitLimits read_limits(const Json& tolerance, Activations activations) {
  LogitLimits limits;
  if (activations == Activations::kFp8) {
    limits.rms_rounded = tolerance.at("logits_rms").get<double>();
    return limits;
  }
  if (activations == Activations::kInt8) {
    // The limit of bf16, three times what that was measured to do, has room for eight bits in blocks: half as much
    // again.
    limits.rms_rounded = tolerance.at("logits_rms_bf16").get<double>();
    return limits;
  }
  limits.max_abs_f32 = tolerance.at("logits_max_abs_f32").get<double>();
  if (!tolerance.at("logits_max_abs_bf16").is_null())
    limits.max_abs_bf16 = tolerance.at("logits_max_abs_bf16").get<double>();
  limits.rms_bf16 = tolerance.at("logits_rms_bf16").get<double>();
  return limits;
}

// Of pictures by their numbers in the recording, one after the other.
std::shared_ptr<const EmbeddingRows> read_visual_rows(const Recording& recording, const Json& pictures) {
  auto rows = std::make_shared<EmbeddingRows>();
  std::size_t digest_at = 0;  // the numbers name the content
  for (const Json& picture : pictures) {
    const auto number = picture.get<std::int32_t>();
    const std::string name = format("image{}.visual_rows", number);
    const Shape shape = recording.shape(name);
    const std::vector<float> values = recording.values<float>(name, DType::kF32, {shape[0], shape[1]});
    rows->hidden = shape[1];
    rows->values.insert(rows->values.end(), values.begin(), values.end());
    rows->digest[digest_at++ % rows->digest.size()] = static_cast<std::uint8_t>(1 + number);
  }
  return rows;
}

ExpectedPrompt read_prompt(const Recording& recording, const Json& entry, const LogitLimits& limits) {
  ExpectedPrompt p;
  p.limits = limits;
  p.name = entry.at("name").get<std::string>();
  p.bf16_same_greedy = entry.at("bf16_same_greedy").get<bool>();
  p.bf16_same_experts = entry.at("bf16_same_experts").get<bool>();
  const Shape logits = recording.shape(p.name + ".logits"), greedy = recording.shape(p.name + ".greedy_logits");
  p.vocab = logits[1];
  p.ids = recording.values<std::int32_t>(p.name + ".input_ids", DType::kI32, recording.shape(p.name + ".input_ids"));
  if (recording.find(p.name + ".logit_rows")) {
    p.logit_rows = recording.values<std::int32_t>(p.name + ".logit_rows", DType::kI32, {logits[0]});
  } else {
    p.logit_rows.resize(p.ids.size());
    std::iota(p.logit_rows.begin(), p.logit_rows.end(), 0);
  }
  p.logits = recording.values<float>(p.name + ".logits", DType::kF32, {std::ssize(p.logit_rows), p.vocab});
  p.greedy_ids = recording.values<std::int32_t>(p.name + ".greedy_ids", DType::kI32, {greedy[0]});
  p.greedy_logits = recording.values<float>(p.name + ".greedy_logits", DType::kF32, {greedy[0], p.vocab});
  const std::string routes = p.name + ".router.layer";
  for (const std::int32_t layer : recording.numbers(routes, ".expert_ids")) {
    const std::string base = format("{}{}", routes, layer);
    const Shape shape = recording.shape(base + ".expert_ids");
    p.routes[layer] = {recording.values<std::int32_t>(base + ".expert_ids", DType::kI32, shape),
                       recording.values<float>(base + ".expert_weights", DType::kF32, shape), shape[1]};
  }
  return p;
}

std::string read_text(const std::string& path) {
  const MappedFile file = MappedFile::open(path);
  return std::string(reinterpret_cast<const char*>(file.bytes().data()), file.size());
}

}  // namespace

Expectations read_expectations(const std::string& path, Activations activations) {
  const bool is_file = fs::is_regular_file(path);
  const fs::path folder = is_file ? fs::path(path).parent_path() : fs::path(path);
  const std::string json_path = folder / "expected.json";
  Json expected = parse_json(read_text(json_path), json_path);
  try {
    if (expected.contains("files")) {  // several files of one model: llama-q4_1.gguf is under "q4_1"
      const std::string stem = fs::path(path).stem();
      const std::string key = stem.substr(stem.find('-') + 1);
      if (!is_file || !expected["files"].contains(key))
        throw Error(ErrorCode::kInvalidArgument,
                    format("{} has recordings for several files; name one of them, such as {}/llama-q8_0.gguf",
                           json_path, folder.string()));
      expected = Json(expected["files"][key]);
    }
    if (activations == Activations::kFp8) {
      if (!expected.contains("activation_fp8"))
        throw Error(ErrorCode::kInvalidArgument, format("{} has no recordings with FP8 activations", json_path));
      expected = Json(expected["activation_fp8"]);
    }
    const Recording recording(folder / "expected.safetensors");
    Expectations e;
    e.activations = activations;
    e.weights_scaled = expected.value("family", "") != "step3p5";
    const Json cases = expected.contains("cases") ? expected["cases"] : Json::array({expected});  // each with pictures
    for (const Json& one : cases) {
      const LogitLimits limits = read_limits(one.at("tolerance"), activations);
      for (const Json& entry : one.at("prompts")) {
        e.prompts.push_back(read_prompt(recording, entry, limits));
        if (one.contains("images")) e.prompts.back().visual_rows = read_visual_rows(recording, one["images"]);
      }
    }
    return e;
  } catch (const Json::exception& problem) {
    throw Error(ErrorCode::kInvalidData, format("{}: {}", json_path, problem.what()));
  }
}

}  // namespace tandem
