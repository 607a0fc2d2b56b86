// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "synthetic/checkpoint_maker.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>

#include "base/error.h"
#include "base/format.h"
#include "checkpoint/safetensors_writer.h"
#include "model/config_reader.h"
#include "synthetic/letter_tokenizer.h"

namespace tandem {

namespace {

namespace fs = std::filesystem;

// Codes of E4M3 use its range without reaching its end, 448.
constexpr float kCodeDeviation = 128;
constexpr float kScaleVariation = 0.1f;  // of block scales, relative
constexpr float kNormDeviation = 0.1f, kBiasDeviation = 0.02f;
// Rows of an embedding that is the head too are as large as logits may be; see spread_of.
constexpr float kTiedLogits = 8;

std::uint64_t bytes_of(const ListedTensor& tensor) {
  return row_bytes(tensor.dtype, static_cast<std::size_t>(tensor.shape.elements()));
}

// What a product with it keeps the size of its input: 1/√inputs. Rows of an embedding are tokens and have no inputs:
// they are of size one, so that what tells tokens apart is not lost among what layers add.
float matrix_deviation(const ListedTensor& tensor, bool tied) {
  const bool stacked = tensor.role.part == Part::kExperts && tensor.shape.rank == 3;
  const auto inputs = static_cast<float>(stacked ? tensor.shape[2] : tensor.shape.row_elements());
  if (tensor.role.part != Part::kEmbedding) return 1 / std::sqrt(inputs);
  return tied ? std::min(1.0f, kTiedLogits / std::sqrt(inputs)) : 1;
}

// before: the tensor in front, which block scales belong to.
NormalSpread spread_of(const ListedTensor& tensor, const ListedTensor* before, bool tied) {
  if (WeightReader::is_scale(tensor.name)) {
    const float scale = matrix_deviation(*before, tied) / kCodeDeviation;
    return {scale, scale * kScaleVariation};
  }
  if (tensor.dtype == DType::kF8E4M3) return {0, kCodeDeviation};
  if (tensor.name.ends_with("bias")) return {0, kBiasDeviation};
  if (tensor.shape.rank == 1) return {1 - tensor.role.added, kNormDeviation};
  return {0, matrix_deviation(tensor, tied)};
}

std::vector<std::vector<std::size_t>> shards_of(const std::vector<ListedTensor>& tensors, std::uint64_t shard_bytes) {
  std::vector<std::vector<std::size_t>> shards(1);
  std::uint64_t bytes = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (!shards.back().empty() && bytes + bytes_of(tensors[i]) > shard_bytes) {
      shards.emplace_back();
      bytes = 0;
    }
    shards.back().push_back(i);
    bytes += bytes_of(tensors[i]);
  }
  return shards;
}

std::uint64_t total_bytes(const std::vector<ListedTensor>& tensors) {
  std::uint64_t bytes = 0;
  for (const ListedTensor& tensor : tensors) bytes += bytes_of(tensor);
  return bytes;
}

std::vector<ListedTensor> tensors_of(const OrderedJson& config) {
  return list_tensors(*Checkpoint::describe(Json(config), "the model"));
}

}  // namespace

CheckpointPlan plan_checkpoint(const OrderedJson& config, std::uint64_t shard_bytes) {
  CheckpointPlan plan;
  plan.config = config;
  plan.tensors = tensors_of(config);
  plan.bytes = total_bytes(plan.tensors);
  plan.shards = shards_of(plan.tensors, shard_bytes);
  const bool tied = std::ranges::none_of(plan.tensors, [](const auto& t) { return t.role.part == Part::kHead; });
  for (std::size_t i = 0; i < plan.tensors.size(); ++i)
    plan.spreads.push_back(spread_of(plan.tensors[i], i > 0 ? &plan.tensors[i - 1] : nullptr, tied));
  return plan;
}

OrderedJson resize_to_bytes(const OrderedJson& config, Resizing resizing, std::uint64_t bytes) {
  constexpr double kScaleMin = 1e-3, kScaleMax = 8;
  constexpr int kSteps = 20;
  const auto size = [](const OrderedJson& resized) { return total_bytes(tensors_of(resized)); };
  resizing.scale = kScaleMin;
  OrderedJson best = resize(config, resizing);
  if (const std::uint64_t least = size(best); least > bytes)
    throw Error(ErrorCode::kInvalidArgument,
                format("the smallest of these models has {:.6f} GB, {:.6f} are asked for",
                       static_cast<double>(least) * 1e-9, static_cast<double>(bytes) * 1e-9));
  double low = kScaleMin, high = kScaleMax;
  for (int i = 0; i < kSteps; ++i) {
    resizing.scale = std::sqrt(low * high);
    OrderedJson tried = resize(config, resizing);
    const bool fits = size(tried) <= bytes;
    (fits ? low : high) = resizing.scale;
    if (fits) best = std::move(tried);
  }
  if (resizing.layers) return best;
  // Widths come in steps; some more layers fill what these leave.
  resizing.scale = low;
  resizing.layers = text_part(best).at("num_hidden_layers").get<std::int64_t>();
  while (++*resizing.layers <= kLayersMax) {
    OrderedJson tried = resize(config, resizing);
    if (size(tried) > bytes) break;
    best = std::move(tried);
  }
  return best;
}

namespace {

[[noreturn]] void fail(const std::string& path, const std::error_code& error) {
  const bool denied = error == std::errc::permission_denied || error == std::errc::operation_not_permitted;
  const ErrorCode code = error == std::errc::no_space_on_device          ? ErrorCode::kOutOfResources
                         : denied                                        ? ErrorCode::kPermissionDenied
                         : error == std::errc::no_such_file_or_directory ? ErrorCode::kNotFound
                                                                         : ErrorCode::kInternal;
  throw Error(code, format("{}: {}", path, error.message()));
}

// A folder that becomes another, or goes.
class PartialFolder {
 public:
  explicit PartialFolder(const std::string& folder) : folder_(folder), partial_(folder + ".partial") {
    std::error_code error;
    if (fs::exists(folder_, error) && !(fs::is_directory(folder_, error) && fs::is_empty(folder_, error)))
      throw Error(ErrorCode::kInvalidArgument, format("{} is there already: nothing is overwritten", folder_));
    if (fs::exists(partial_, error))
      throw Error(ErrorCode::kInvalidArgument,
                  format("{} is there already, left by a run that was ended: remove it", partial_));
    fs::create_directories(partial_, error);
    if (error) fail(partial_, error);
  }
  PartialFolder(const PartialFolder&) = delete;
  PartialFolder& operator=(const PartialFolder&) = delete;
  ~PartialFolder() {
    std::error_code ignored;
    if (!finished_) fs::remove_all(partial_, ignored);
  }

  std::string path(const std::string& name) const { return partial_ + "/" + name; }
  void check_space(std::uint64_t bytes) const {
    std::error_code error;
    const fs::space_info space = fs::space(partial_, error);
    if (error) fail(partial_, error);
    if (space.available < bytes)
      throw Error(ErrorCode::kOutOfResources,
                  format("{} takes {:.3f} GB, the disk has {:.3f} GB left", folder_, static_cast<double>(bytes) * 1e-9,
                         static_cast<double>(space.available) * 1e-9));
  }
  void write(const std::string& name, const std::string& text) const {
    std::ofstream file(path(name), std::ios::binary);
    file << text;
    file.flush();
    if (!file) fail(path(name), std::make_error_code(std::errc::io_error));
  }
  void finish() {
    std::error_code error;
    fs::rename(partial_, folder_, error);
    if (error) fail(folder_, error);
    finished_ = true;
  }

 private:
  std::string folder_, partial_;
  bool finished_ = false;
};

std::string shard_name(std::size_t shard, std::size_t count) {
  return count == 1 ? "model.safetensors" : format("model-{:05}-of-{:05}.safetensors", shard + 1, count);
}

std::string index_json(const CheckpointPlan& plan) {
  std::map<std::string, std::string> weight_map;
  for (std::size_t s = 0; s < plan.shards.size(); ++s)
    for (const std::size_t i : plan.shards[s]) weight_map[plan.tensors[i].name] = shard_name(s, plan.shards.size());
  const Json index{{"metadata", {{"total_size", plan.bytes}}}, {"weight_map", weight_map}};
  return index.dump(2) + "\n";
}

void write_shard(const CheckpointPlan& plan, const std::vector<std::size_t>& shard, const std::string& path,
                 const WritingOptions& options) {
  std::vector<SafetensorsEntry> entries;
  std::vector<WeightValues> values;
  for (const std::size_t i : shard) {
    const ListedTensor& tensor = plan.tensors[i];
    entries.push_back({tensor.name, tensor.dtype, tensor.shape});
    values.emplace_back(options.seed, tensor.name, tensor.dtype, plan.spreads[i]);
  }
  const auto fill = [&](std::size_t index, std::uint64_t offset, std::span<std::byte> out) {
    values[index].fill(offset, out);
  };
  write_safetensors(path, entries, {fill, options.threads, options.listener}, {{"format", "pt"}});
}

}  // namespace

void write_checkpoint(const CheckpointPlan& plan, const std::string& folder, const WritingOptions& options) {
  constexpr std::uint64_t kSideBytes = 64 << 20;  // headers, tokenizer, index: more than they ever take
  const TokenizerFiles tokenizer = make_tokenizer_files(plan.config);
  PartialFolder partial(folder);
  partial.check_space(plan.bytes + kSideBytes);
  partial.write("config.json", plan.config.dump(2) + "\n");
  partial.write("tokenizer.json", tokenizer.tokenizer);
  partial.write("tokenizer_config.json", tokenizer.tokenizer_config);
  partial.write("generation_config.json", tokenizer.generation_config);
  for (std::size_t s = 0; s < plan.shards.size(); ++s)
    write_shard(plan, plan.shards[s], partial.path(shard_name(s, plan.shards.size())), options);
  if (plan.shards.size() > 1) partial.write("model.safetensors.index.json", index_json(plan));
  partial.finish();
}

}  // namespace tandem
