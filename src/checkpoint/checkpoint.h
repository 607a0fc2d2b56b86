// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A model on disk, whatever its format: tensors by name, configuration, files beside the weights.
//
// Opening maps the files and validates every header; no weight is read. A checkpoint is a GGUF file, a folder that
// holds exactly one, or a Hugging Face folder with config.json and model.safetensors or the shards its index names.
// What the tensors should be called and measure is known to models (tensor_requirements.h), not here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/json.h"
#include "checkpoint/gguf.h"
#include "checkpoint/mapped_file.h"
#include "checkpoint/tensor_info.h"

namespace tandem {

enum class CheckpointFormat { kSafetensors, kGguf };

std::string_view name(CheckpointFormat format);

inline constexpr std::size_t kShardsMax = 4096;
inline constexpr std::uint64_t kSideFileBytesMax = 64 << 20;  // tokenizer.json of large vocabularies is the longest

// Does not change after open: all members may be called from any thread. Infos, views and spans that it hands out live
// as long as it does; an info that it did not hand out must not be given to it.
class Checkpoint {
 public:
  // Throws Error: kNotFound, kPermissionDenied, kInvalidArgument for a path that is no checkpoint, kInvalidData for
  // files that do not hold together, kUnsupported.
  static std::unique_ptr<Checkpoint> open(const std::string& path);
  // The same, but path may also be a config.json or a Hugging Face folder that has one and no weights.
  static std::unique_ptr<Checkpoint> open_description(const std::string& path);
  // Of a config.json that is no file yet. path is what messages call its folder.
  static std::unique_ptr<Checkpoint> describe(Json config, const std::string& path);

  CheckpointFormat format() const { return format_; }
  const std::string& path() const { return path_; }                    // as given to open
  bool has_weights() const { return !files_.empty(); }                 // always, unless opened as a description
  const std::vector<TensorInfo>& tensors() const { return tensors_; }  // in file order
  const TensorInfo* find(std::string_view name) const;                 // null if there is none
  const MappedFile& file(const TensorInfo& info) const { return files_[info.file]; }
  std::uint64_t tensor_bytes() const;  // of all tensors

  // The bytes as stored, not aligned to anything. Throws Error{kUnsupported} for a type that this build does not read;
  // the message names every such tensor (up to a limit), since one is rarely alone.
  std::span<const std::byte> data(const TensorInfo& info) const;
  // Gives back the memory of a stretch of a tensor that was read, or starts reading one that will be.
  void release(const TensorInfo& info, std::uint64_t offset, std::uint64_t bytes) const;
  void prefetch(const TensorInfo& info) const;

  // config.json, or all GGUF metadata that are no arrays under their own keys ("llama.block_count").
  const Json& config() const { return config_; }
  // The GGUF metadata that are arrays. Throws Error{kNotFound} naming the key, or {kInvalidData} for another element
  // type.
  bool has_array(std::string_view key) const { return arrays_.contains(key); }
  std::uint64_t array_size(std::string_view key) const { return array(key).count; }
  std::vector<std::string_view> string_array(std::string_view key) const;
  std::vector<std::int64_t> integer_array(std::string_view key) const;
  std::vector<double> number_array(std::string_view key) const;
  const std::map<std::string, GgufArray, std::less<>>& arrays() const { return arrays_; }

  // The text of a file beside the weights, such as tokenizer.json; none if it is missing. name is a plain file name.
  std::optional<std::string> side_file(const std::string& name) const;

 private:
  Checkpoint(CheckpointFormat format, std::string path, std::string folder);
  static std::unique_ptr<Checkpoint> open_gguf(const std::string& path, const std::string& file,
                                               const std::string& folder);
  static std::unique_ptr<Checkpoint> open_config(const std::string& path, const std::string& file);
  static std::unique_ptr<Checkpoint> open_safetensors(const std::string& folder);
  void add_safetensors(const std::string& file);
  void add_indexed_shards(const std::string& index_file);
  void index_tensors();
  const GgufArray& array(std::string_view key) const;

  CheckpointFormat format_;
  std::string path_;
  std::string folder_;  // of the weights
  std::vector<MappedFile> files_;
  std::vector<TensorInfo> tensors_;
  std::unordered_map<std::string_view, std::size_t> by_name_;  // views into tensors_
  Json config_;
  std::map<std::string, GgufArray, std::less<>> arrays_;
};

// "Q4_K: blk.0.attn_q.weight, blk.0.attn_k.weight; Q6_K: …" for every tensor of a type that this build does not read,
// at most a few names per type and the count of the rest. Empty if there is none.
std::string describe_unsupported(std::span<const TensorInfo> tensors);

}  // namespace tandem
