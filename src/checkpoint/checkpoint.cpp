// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "checkpoint/checkpoint.h"

#include <algorithm>
#include <filesystem>
#include <set>
#include <system_error>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "base/format.h"
#include "checkpoint/safetensors.h"

namespace tandem {

namespace {

namespace fs = std::filesystem;

constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kConfigFile = "config.json";
constexpr const char* kIndexFile = "model.safetensors.index.json";
constexpr std::size_t kNamesShownMax = 20;

// A name that stays inside the folder it is appended to.
bool is_plain_file_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string_view::npos &&
         name.find('\\') == std::string_view::npos && name.find('\0') == std::string_view::npos;
}

std::string path_in(const std::string& folder, std::string_view name) {
  return (fs::path(folder) / name).string();
}

bool exists(const std::string& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

std::string read_text(const std::string& path, std::uint64_t bytes_max) {
  const MappedFile file = MappedFile::open(path);
  if (file.size() > bytes_max)
    throw Error(ErrorCode::kInvalidData, format("{}: {} bytes, limit is {}", path, file.size(), bytes_max));
  return {reinterpret_cast<const char*>(file.bytes().data()), file.size()};
}

Json read_json_object(const std::string& path) {
  Json value =
      parse_json(read_text(path, kSideFileBytesMax), path, {.bytes_max = kSideFileBytesMax, .unique_keys = true});
  if (!value.is_object()) throw Error(ErrorCode::kInvalidData, format("{}: not a JSON object", path));
  return value;
}

std::vector<std::string> gguf_files_in(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code error;
  fs::directory_iterator it(folder, error);
  // The error-code forms throughout: a folder may change or refuse while it is walked.
  for (; !error && it != fs::directory_iterator(); it.increment(error))
    if (it->path().extension() == ".gguf") names.push_back(it->path().filename().string());
  if (error == std::errc::permission_denied)
    throw Error(ErrorCode::kPermissionDenied, format("{}: {}", folder, error.message()));
  if (error) throw Error(ErrorCode::kInternal, format("{}: {}", folder, error.message()));
  std::ranges::sort(names);
  return names;
}

// Tensor name → shard, every shard a plain file name.
std::map<std::string, std::string> read_index(const std::string& path) {
  const Json index = read_json_object(path);
  const auto map = index.find("weight_map");
  if (map == index.end() || !map->is_object())
    throw Error(ErrorCode::kInvalidData, format("{}: has no object 'weight_map'", path));
  std::map<std::string, std::string> shards;
  for (const auto& [tensor, shard] : map->items()) {
    if (!shard.is_string())
      throw Error(ErrorCode::kInvalidData, format("{}: the shard of '{}' is not a string", path, printable(tensor)));
    const auto& file = shard.get_ref<const std::string&>();
    if (!is_plain_file_name(file))
      throw Error(ErrorCode::kInvalidData, format("{}: the shard '{}' of '{}' is not a plain file name", path,
                                                  printable(file), printable(tensor)));
    shards.emplace(tensor, file);
  }
  if (shards.empty()) throw Error(ErrorCode::kInvalidData, format("{}: 'weight_map' is empty", path));
  return shards;
}

}  // namespace

std::string_view name(CheckpointFormat format) {
  return format == CheckpointFormat::kGguf ? "gguf" : "safetensors";
}

Checkpoint::Checkpoint(CheckpointFormat format, std::string path, std::string folder)
    : format_(format), path_(std::move(path)), folder_(std::move(folder)) {}

std::unique_ptr<Checkpoint> Checkpoint::open(const std::string& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::is_directory(status)) {
    if (path.ends_with(".safetensors"))
      throw Error(ErrorCode::kInvalidArgument,
                  tandem::format("{}: give the folder that holds this file and its config.json", path));
    const std::string folder = fs::path(path).parent_path().string();
    return open_gguf(path, path, folder.empty() ? "." : folder);
  }
  if (exists(path_in(path, kSingleFile)) || exists(path_in(path, kIndexFile))) return open_safetensors(path);
  const std::vector<std::string> ggufs = gguf_files_in(path);
  if (ggufs.empty())
    throw Error(ErrorCode::kNotFound,
                tandem::format("{}: holds neither {} nor {} nor a .gguf file", path, kSingleFile, kIndexFile));
  if (ggufs.size() > 1)
    throw Error(ErrorCode::kInvalidArgument,
                tandem::format("{}: holds {} .gguf files, give the path of one: {}", path, ggufs.size(),
                               join(ggufs.begin(), ggufs.begin() + std::min(ggufs.size(), kNamesShownMax), ", ")));
  return open_gguf(path, path_in(path, ggufs[0]), path);
}

std::unique_ptr<Checkpoint> Checkpoint::open_description(const std::string& path) {
  std::error_code ignored;
  if (!fs::is_directory(path, ignored))
    return fs::path(path).extension() == ".json" ? open_config(path, path) : open(path);
  const std::string config = path_in(path, kConfigFile);
  const bool has_weights =
      exists(path_in(path, kSingleFile)) || exists(path_in(path, kIndexFile)) || !gguf_files_in(path).empty();
  return has_weights || !exists(config) ? open(path) : open_config(path, config);
}

std::unique_ptr<Checkpoint> Checkpoint::open_config(const std::string& path, const std::string& file) {
  const std::string folder = fs::path(file).parent_path().string();
  std::unique_ptr<Checkpoint> result(
      new Checkpoint(CheckpointFormat::kSafetensors, path, folder.empty() ? "." : folder));
  result->config_ = read_json_object(file);
  return result;
}

std::unique_ptr<Checkpoint> Checkpoint::describe(Json config, const std::string& path) {
  std::unique_ptr<Checkpoint> result(new Checkpoint(CheckpointFormat::kSafetensors, path, path));
  result->config_ = std::move(config);
  return result;
}

std::unique_ptr<Checkpoint> Checkpoint::open_gguf(const std::string& path, const std::string& file,
                                                  const std::string& folder) {
  std::unique_ptr<Checkpoint> result(new Checkpoint(CheckpointFormat::kGguf, path, folder));
  result->files_.push_back(MappedFile::open(file));
  GgufHeader header = parse_gguf(result->files_[0].bytes(), file);
  const auto parts = header.scalars.find("split.count");
  if (parts != header.scalars.end() && parts->is_number() && parts->get<double>() > 1)
    throw Error(ErrorCode::kUnsupported,
                tandem::format("{}: one of {} parts; join the parts into one file first", file, parts->dump()));
  result->tensors_ = std::move(header.tensors);
  result->config_ = std::move(header.scalars);
  result->arrays_ = std::move(header.arrays);
  result->index_tensors();
  return result;
}

std::unique_ptr<Checkpoint> Checkpoint::open_safetensors(const std::string& folder) {
  std::unique_ptr<Checkpoint> result(new Checkpoint(CheckpointFormat::kSafetensors, folder, folder));
  result->config_ = read_json_object(path_in(folder, kConfigFile));
  if (const std::string single = path_in(folder, kSingleFile); exists(single)) {
    result->add_safetensors(single);
    result->index_tensors();
  } else {
    result->add_indexed_shards(path_in(folder, kIndexFile));
  }
  return result;
}

void Checkpoint::add_safetensors(const std::string& file) {
  files_.push_back(MappedFile::open(file));
  SafetensorsHeader header = parse_safetensors(files_.back().bytes(), file);
  for (TensorInfo& info : header.tensors) {
    info.file = static_cast<int>(files_.size()) - 1;
    tensors_.push_back(std::move(info));
  }
}

void Checkpoint::add_indexed_shards(const std::string& index_file) {
  const std::map<std::string, std::string> shard_of = read_index(index_file);
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : shard_of) shards.insert(shard);
  if (shards.size() > kShardsMax)
    throw Error(ErrorCode::kInvalidData,
                tandem::format("{}: {} shards, limit is {}", index_file, shards.size(), kShardsMax));
  std::string missing;
  for (const std::string& shard : shards)
    if (!exists(path_in(folder_, shard))) missing += (missing.empty() ? "" : ", ") + printable(shard);
  if (!missing.empty())
    throw Error(ErrorCode::kNotFound, tandem::format("{}: missing shards: {}", index_file, missing));
  for (const std::string& shard : shards) add_safetensors(path_in(folder_, shard));
  index_tensors();

  for (const auto& [tensor, shard] : shard_of) {
    const TensorInfo* info = find(tensor);
    if (!info || fs::path(file(*info).path()).filename().string() != shard)
      throw Error(ErrorCode::kInvalidData,
                  tandem::format("{}: tensor '{}' is not in {}", index_file, printable(tensor), printable(shard)));
  }
}

void Checkpoint::index_tensors() {
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    const auto [at, is_new] = by_name_.emplace(tensors_[i].name, i);
    if (!is_new)
      throw Error(ErrorCode::kInvalidData,
                  tandem::format("tensor '{}' is both in {} and in {}", printable(tensors_[i].name),
                                 file(tensors_[at->second]).path(), file(tensors_[i]).path()));
  }
}

const TensorInfo* Checkpoint::find(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &tensors_[found->second];
}

std::uint64_t Checkpoint::tensor_bytes() const {
  std::uint64_t sum = 0;
  for (const TensorInfo& info : tensors_) sum += info.bytes;
  return sum;
}

std::span<const std::byte> Checkpoint::data(const TensorInfo& info) const {
  if (!info.dtype)
    throw Error(ErrorCode::kUnsupported,
                tandem::format("{}: tensor '{}' has unsupported type {}; all tensors of unsupported types: {}", path_,
                               printable(info.name), info.type_name, describe_unsupported(tensors_)));
  return file(info).bytes(info.offset, info.bytes);
}

void Checkpoint::release(const TensorInfo& info, std::uint64_t offset, std::uint64_t bytes) const {
  TANDEM_CHECK(offset <= info.bytes && bytes <= info.bytes - offset, "a stretch outside the tensor");
  file(info).release(info.offset + offset, bytes);
}
void Checkpoint::prefetch(const TensorInfo& info) const {
  file(info).prefetch(info.offset, info.bytes);
}

const GgufArray& Checkpoint::array(std::string_view key) const {
  const auto found = arrays_.find(key);
  if (found == arrays_.end()) throw Error(ErrorCode::kNotFound, tandem::format("{}: has no array '{}'", path_, key));
  return found->second;
}

namespace {

// Adds the file and the key to the message of a conversion that failed.
template <class Convert>
auto convert_array(const std::string& path, std::string_view key, Convert convert) {
  try {
    return convert();
  } catch (const Error& error) {
    throw Error(error.code(), tandem::format("{}: metadata '{}': {}", path, key, error.message()));
  }
}

}  // namespace

std::vector<std::string_view> Checkpoint::string_array(std::string_view key) const {
  const GgufArray& found = array(key);
  return convert_array(path_, key, [&] { return strings(found); });
}

std::vector<std::int64_t> Checkpoint::integer_array(std::string_view key) const {
  const GgufArray& found = array(key);
  return convert_array(path_, key, [&] { return integers(found); });
}

std::vector<double> Checkpoint::number_array(std::string_view key) const {
  const GgufArray& found = array(key);
  return convert_array(path_, key, [&] { return numbers(found); });
}

std::optional<std::string> Checkpoint::side_file(const std::string& name) const {
  TANDEM_CHECK(is_plain_file_name(name), "a side file has a plain name");
  const std::string path = path_in(folder_, name);
  if (!exists(path)) return std::nullopt;
  return read_text(path, kSideFileBytesMax);
}

std::string describe_unsupported(std::span<const TensorInfo> tensors) {
  std::map<std::string, std::vector<std::string>> by_type;
  for (const TensorInfo& info : tensors)
    if (!info.dtype) by_type[info.type_name].push_back(printable(info.name));
  std::string text;
  for (const auto& [type, names] : by_type) {
    const std::size_t shown = std::min(names.size(), kNamesShownMax);
    text += format("{}{}: {}", text.empty() ? "" : "; ", type, join(names.begin(), names.begin() + shown, ", "));
    if (shown < names.size()) text += format(" and {} more", names.size() - shown);
  }
  return text;
}

}  // namespace tandem
