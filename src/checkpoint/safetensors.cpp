// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "checkpoint/safetensors.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/format.h"
#include "base/json.h"

namespace tandem {

namespace {

constexpr std::uint64_t kLengthBytes = 8;

struct FileType {
  std::string_view name;
  std::uint64_t bytes;
  std::optional<DType> dtype;  // none: listed only
};

constexpr FileType kTypes[] = {
    {"F32", 4, DType::kF32},
    {"F16", 2, DType::kF16},
    {"BF16", 2, DType::kBF16},
    {"F8_E4M3", 1, DType::kF8E4M3},
    {"I32", 4, DType::kI32},
    {"U8", 1, DType::kU8},
    {"F64", 8, {}},
    {"F8_E5M2", 1, {}},
    {"F8_E8M0", 1, {}},
    {"I64", 8, {}},
    {"U64", 8, {}},
    {"U32", 4, {}},
    {"I16", 2, {}},
    {"U16", 2, {}},
    {"I8", 1, {}},
    {"BOOL", 1, {}},
};

[[noreturn]] void fail(const std::string& what, std::string_view problem) {
  throw Error(ErrorCode::kInvalidData, format("{}: {}", what, problem));
}

// The JSON text of the header, its length checked.
std::string_view header_text(std::span<const std::byte> file, const std::string& what) {
  if (file.size() < kLengthBytes)
    fail(what,
         format("{} bytes long, a safetensors file begins with {} bytes of header length", file.size(), kLengthBytes));
  std::uint64_t length;
  std::memcpy(&length, file.data(), kLengthBytes);
  if (length > kSafetensorsHeaderBytesMax)
    fail(what, format("header of {} bytes, limit is {}", length, kSafetensorsHeaderBytesMax));
  if (length > file.size() - kLengthBytes)
    fail(what, format("header of {} bytes, the file has {} left", length, file.size() - kLengthBytes));
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + kLengthBytes, length);
  if (!text.starts_with('{')) fail(what, "the header does not begin with '{'");
  return text;
}

std::map<std::string, std::string> read_metadata(const Json& entry, const std::string& what) {
  if (!entry.is_object()) fail(what, "__metadata__ is not an object");
  std::map<std::string, std::string> metadata;
  for (const auto& [key, value] : entry.items()) {
    if (!value.is_string()) fail(what, format("__metadata__ '{}' is not a string", printable(key)));
    metadata.emplace(key, value.get<std::string>());
  }
  return metadata;
}

// A list of non-negative whole numbers; anything else is an error that names the field.
std::vector<std::uint64_t> read_numbers(const Json& entry, const char* key, std::size_t count_max,
                                        const std::string& field) {
  const auto found = entry.find(key);
  if (found == entry.end() || !found->is_array())
    throw Error(ErrorCode::kInvalidData, format("{} has no list '{}'", field, key));
  if (found->size() > count_max)
    throw Error(ErrorCode::kInvalidData,
                format("{}: {} has {} entries, limit is {}", field, key, found->size(), count_max));
  std::vector<std::uint64_t> values;
  for (const Json& value : *found) {
    if (!value.is_number_unsigned())
      throw Error(ErrorCode::kInvalidData, format("{}: {} holds {}, which is not a number from 0 to 2^64 - 1", field,
                                                  key, printable(to_line(value))));
    values.push_back(value.get<std::uint64_t>());
  }
  return values;
}

void set_type(TensorInfo& info, std::span<const std::uint64_t> dims, std::uint64_t elements, const std::string& field) {
  const auto* type = std::ranges::find(kTypes, std::string_view(info.type_name), &FileType::name);
  if (type == std::end(kTypes)) return;
  // elements is at most 2^48: no overflow.
  if (info.bytes != elements * type->bytes)
    throw Error(ErrorCode::kInvalidData, format("{}: {} of shape [{}] takes {} bytes, data_offsets span {}", field,
                                                type->name, join(dims, ", "), elements * type->bytes, info.bytes));
  info.dtype = type->dtype;
  if (dims.size() > 4) {
    info.dtype.reset();
    info.type_name += format(" of rank {}", dims.size());
  }
}

// The offset is still relative to the data when this returns.
TensorInfo read_tensor(const std::string& key, const Json& entry, const std::string& what) {
  const std::string field = format("{}: tensor '{}'", what, printable(key));
  if (key.empty() || key.size() > kTensorNameBytesMax)
    fail(what, format("tensor name of {} bytes '{}', limit is {}", key.size(), printable(key), kTensorNameBytesMax));
  if (!entry.is_object()) throw Error(ErrorCode::kInvalidData, format("{} is not described by an object", field));
  TensorInfo info;
  info.name = key;
  const auto type = entry.find("dtype");
  if (type == entry.end() || !type->is_string()) throw Error(ErrorCode::kInvalidData, format("{} has no dtype", field));
  info.type_name = printable(type->get_ref<const std::string&>());

  const auto dims = read_numbers(entry, "shape", kSafetensorsRankMax, field);
  const auto elements = element_count(dims);
  if (!elements)
    throw Error(ErrorCode::kInvalidData,
                format("{} has shape [{}], limit is {} elements", field, join(dims, ", "), kTensorElementsMax));
  info.shape = to_shape(dims);

  const auto range = read_numbers(entry, "data_offsets", 2, field);
  if (range.size() != 2 || range[0] > range[1])
    throw Error(ErrorCode::kInvalidData,
                format("{} has data_offsets [{}], expected a begin and an end", field, join(range, ", ")));
  info.offset = range[0];
  info.bytes = range[1] - range[0];
  set_type(info, dims, *elements, field);
  return info;
}

// Sorts by offset, moves offsets to the start of the file and checks that the data are covered exactly once.
void place_tensors(std::vector<TensorInfo>& tensors, std::uint64_t data_offset, std::uint64_t data_bytes,
                   const std::string& what) {
  std::ranges::sort(tensors, [](const TensorInfo& a, const TensorInfo& b) {
    return a.offset != b.offset ? a.offset < b.offset : a.bytes < b.bytes;
  });
  std::uint64_t expected = 0;
  for (TensorInfo& info : tensors) {
    if (info.offset != expected)
      fail(what, format("tensor '{}' begins at {}, the one before it ends at {}: {}", printable(info.name), info.offset,
                        expected, info.offset < expected ? "they overlap" : "bytes between them belong to nobody"));
    expected += info.bytes;
    if (expected > data_bytes)
      fail(what,
           format("tensor '{}' ends at {}, the file has {} bytes of data", printable(info.name), expected, data_bytes));
    info.offset += data_offset;
  }
  if (expected != data_bytes)
    fail(what, format("tensors end at {}, the file has {} bytes of data", expected, data_bytes));
}

}  // namespace

SafetensorsHeader parse_safetensors(std::span<const std::byte> file, const std::string& what) {
  const std::string_view text = header_text(file, what);
  const Json json =
      parse_json(text, what, {.bytes_max = kSafetensorsHeaderBytesMax, .depth_max = 4, .unique_keys = true});
  if (!json.is_object()) fail(what, "the header is not an object");
  if (json.size() > kSafetensorsTensorsMax)
    fail(what, format("{} tensors, limit is {}", json.size(), kSafetensorsTensorsMax));
  SafetensorsHeader header;
  for (const auto& [key, entry] : json.items()) {
    if (key == "__metadata__") {
      header.metadata = read_metadata(entry, what);
    } else {
      header.tensors.push_back(read_tensor(key, entry, what));
    }
  }
  const std::uint64_t data_offset = kLengthBytes + text.size();
  place_tensors(header.tensors, data_offset, file.size() - data_offset, what);
  return header;
}

std::string_view safetensors_name(DType dtype) {
  for (const FileType& type : kTypes)
    if (type.dtype == dtype) return type.name;
  return {};
}

}  // namespace tandem
