// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "checkpoint/gguf.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <unordered_set>

#include "base/check.h"
#include "base/error.h"
#include "base/format.h"
#include "checkpoint/gguf_types.h"

static_assert(std::endian::native == std::endian::little, "model files are little-endian and read as they are");

namespace tandem {

namespace {

constexpr std::uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr std::uint32_t kDimensionsMax = 4;
constexpr std::uint64_t kAlignmentMin = 8;
// The smallest entries there can be: counts are compared with the bytes left before anything is reserved.
constexpr std::uint64_t kMetadataBytesMin = 8 + 4 + 1;    // empty key, type, one-byte value
constexpr std::uint64_t kTensorBytesMin = 8 + 4 + 4 + 8;  // empty name, no dimensions, type, offset

// Bytes of one value; a string is at least its length.
std::uint64_t value_bytes_min(GgufValueType type) {
  switch (type) {
    case GgufValueType::kU8:
    case GgufValueType::kI8:
    case GgufValueType::kBool:
      return 1;
    case GgufValueType::kU16:
    case GgufValueType::kI16:
      return 2;
    case GgufValueType::kU32:
    case GgufValueType::kI32:
    case GgufValueType::kF32:
      return 4;
    case GgufValueType::kString:
    case GgufValueType::kU64:
    case GgufValueType::kI64:
    case GgufValueType::kF64:
      return 8;
    case GgufValueType::kArray:
      break;
  }
  TANDEM_CHECK(false, "an array is not a single value");
  return 0;
}

template <class T>
T load(const std::byte* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

// Walks forward over the bytes; every step says what it wanted when it does not fit.
class Cursor {
 public:
  Cursor(std::span<const std::byte> bytes, const std::string& what) : bytes_(bytes), what_(what) {}

  std::uint64_t position() const { return position_; }
  std::uint64_t left() const { return bytes_.size() - position_; }

  std::span<const std::byte> take(std::uint64_t count, std::string_view field) {
    if (count > left())
      fail(format("{} needs {} bytes at offset {}, the file has {} left", field, count, position_, left()));
    const auto part = bytes_.subspan(position_, count);
    position_ += count;
    return part;
  }

  template <class T>
  T number(std::string_view field) {
    return load<T>(take(sizeof(T), field).data());
  }

  std::string_view string(std::string_view field, std::uint64_t bytes_max) {
    const auto length = number<std::uint64_t>(field);
    if (length > bytes_max) fail(format("{} is {} bytes long, limit is {}", field, length, bytes_max));
    const auto part = take(length, field);
    return {reinterpret_cast<const char*>(part.data()), part.size()};
  }

  // A number of entries to come, each of at least entry_bytes.
  std::uint64_t count(std::string_view field, std::uint64_t count_max, std::uint64_t entry_bytes) {
    const auto count = number<std::uint64_t>(field);
    if (count > count_max) fail(format("{} is {}, limit is {}", field, count, count_max));
    if (count > left() / entry_bytes)
      fail(format("{} is {}, which the {} bytes left cannot hold", field, count, left()));
    return count;
  }

  [[noreturn]] void fail(std::string_view problem) const {
    throw Error(ErrorCode::kInvalidData, format("{}: {}", what_, problem));
  }
  [[noreturn]] void refuse(std::string_view problem) const {
    throw Error(ErrorCode::kUnsupported, format("{}: {}", what_, problem));
  }

 private:
  std::span<const std::byte> bytes_;
  const std::string& what_;
  std::uint64_t position_ = 0;
};

std::uint32_t read_version(Cursor& in) {
  if (in.number<std::uint32_t>("the magic number") != kMagic) in.fail("not a GGUF file: it does not begin with GGUF");
  const auto version = in.number<std::uint32_t>("the version");
  if (version == 2 || version == 3) return version;
  if (version == __builtin_bswap32(2) || version == __builtin_bswap32(3)) in.refuse("big-endian GGUF is not read");
  in.refuse(format("GGUF version {} is not read, only 2 and 3", version));
}

GgufValueType read_type(Cursor& in, std::string_view field) {
  const auto number = in.number<std::uint32_t>(field);
  if (number > static_cast<std::uint32_t>(GgufValueType::kF64))
    in.fail(format("{} has unknown type {}", field, number));
  return static_cast<GgufValueType>(number);
}

bool read_bool(Cursor& in, std::string_view field) {
  const auto byte = in.number<std::uint8_t>(field);
  if (byte > 1) in.fail(format("{} is a boolean with the value {}", field, byte));
  return byte == 1;
}

Json read_scalar(Cursor& in, GgufValueType type, std::string_view field) {
  switch (type) {
    case GgufValueType::kU8:
      return in.number<std::uint8_t>(field);
    case GgufValueType::kI8:
      return in.number<std::int8_t>(field);
    case GgufValueType::kU16:
      return in.number<std::uint16_t>(field);
    case GgufValueType::kI16:
      return in.number<std::int16_t>(field);
    case GgufValueType::kU32:
      return in.number<std::uint32_t>(field);
    case GgufValueType::kI32:
      return in.number<std::int32_t>(field);
    case GgufValueType::kF32:
      return in.number<float>(field);
    case GgufValueType::kBool:
      return read_bool(in, field);
    case GgufValueType::kString:
      return std::string(in.string(field, kGgufStringBytesMax));
    case GgufValueType::kU64:
      return in.number<std::uint64_t>(field);
    case GgufValueType::kI64:
      return in.number<std::int64_t>(field);
    case GgufValueType::kF64:
      return in.number<double>(field);
    case GgufValueType::kArray:
      break;
  }
  TANDEM_CHECK(false, "an array is not a single value");
  return {};
}

GgufArray read_array(Cursor& in, std::span<const std::byte> file, std::string_view field) {
  GgufArray array;
  array.element = read_type(in, field);
  if (array.element == GgufValueType::kArray) in.refuse(format("{} is an array of arrays, which is not read", field));
  const std::uint64_t element_bytes = value_bytes_min(array.element);
  array.count = in.count(format("the length of {}", field), kGgufArrayElementsMax, element_bytes);
  const std::uint64_t begin = in.position();
  if (array.element == GgufValueType::kString) {
    for (std::uint64_t i = 0; i < array.count; ++i) in.string(field, kGgufStringBytesMax);
  } else if (array.element == GgufValueType::kBool) {
    for (std::uint64_t i = 0; i < array.count; ++i) read_bool(in, field);
  } else {
    in.take(array.count * element_bytes, field);
  }
  array.bytes = file.subspan(begin, in.position() - begin);
  return array;
}

void read_metadata(Cursor& in, std::span<const std::byte> file, std::uint64_t count, GgufHeader& header) {
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::string key(in.string(format("key {} of the metadata", i), kGgufKeyBytesMax));
    const std::string field = format("metadata '{}'", printable(key));
    if (key.empty()) in.fail(format("key {} of the metadata is empty", i));
    if (header.scalars.contains(key) || header.arrays.contains(key)) in.fail(format("{} appears twice", field));
    const GgufValueType type = read_type(in, field);
    if (type == GgufValueType::kArray) {
      header.arrays.emplace(key, read_array(in, file, field));
    } else {
      header.scalars[key] = read_scalar(in, type, field);
    }
  }
}

std::uint64_t alignment_of(const Cursor& in, const GgufHeader& header) {
  if (header.arrays.contains("general.alignment")) in.fail("general.alignment is an array");
  const auto found = header.scalars.find("general.alignment");
  if (found == header.scalars.end()) return kGgufAlignmentDefault;
  if (!found->is_number_unsigned()) in.fail("general.alignment is not an unsigned number");
  const auto alignment = found->get<std::uint64_t>();
  if (!std::has_single_bit(alignment) || alignment < kAlignmentMin || alignment > kGgufAlignmentMax)
    in.fail(format("general.alignment is {}, must be a power of two from {} to {}", alignment, kAlignmentMin,
                   kGgufAlignmentMax));
  return alignment;
}

void set_type(const Cursor& in, std::uint32_t number, std::span<const std::uint64_t> dims, TensorInfo& info) {
  const std::uint64_t elements = *element_count(dims);
  const GgufTensorType* type = find_gguf_tensor_type(number);
  if (!type) {
    info.type_name = format("type {}", number);
    return;
  }
  const std::uint64_t row = dims.empty() ? 1 : dims.back();
  if (row % type->block_elements != 0)
    in.fail(format("tensor '{}' has rows of {} elements, {} comes in blocks of {}", printable(info.name), row,
                   type->name, type->block_elements));
  info.type_name = type->name;
  info.dtype = type->dtype;
  info.bytes = elements / type->block_elements * type->block_bytes;
}

// The offset is still relative to the data when this returns.
TensorInfo read_tensor(Cursor& in, std::uint64_t index) {
  TensorInfo info;
  info.name = in.string(format("the name of tensor {}", index), kTensorNameBytesMax);
  if (info.name.empty()) in.fail(format("tensor {} has no name", index));
  const std::string field = format("tensor '{}'", printable(info.name));

  const auto rank = in.number<std::uint32_t>(field);
  if (rank > kDimensionsMax) in.fail(format("{} has {} dimensions, limit is {}", field, rank, kDimensionsMax));
  std::vector<std::uint64_t> dims(rank);
  for (std::uint64_t& d : dims) d = in.number<std::uint64_t>(field);
  std::ranges::reverse(dims);  // the file begins with the innermost
  if (!element_count(dims))
    in.fail(format("{} has dimensions [{}], limit is {} elements", field, join(dims, ", "), kTensorElementsMax));
  info.shape = to_shape(dims);

  set_type(in, in.number<std::uint32_t>(field), dims, info);
  info.offset = in.number<std::uint64_t>(field);
  return info;
}

void read_tensors(Cursor& in, std::uint64_t count, GgufHeader& header) {
  header.tensors.reserve(count);
  for (std::uint64_t i = 0; i < count; ++i) header.tensors.push_back(read_tensor(in, i));
  std::unordered_set<std::string_view> names;
  for (const TensorInfo& info : header.tensors)
    if (!names.insert(info.name).second) in.fail(format("tensor '{}' appears twice", printable(info.name)));
}

// Moves offsets to the start of the file and checks that the data are aligned, inside the file and disjoint.
void place_tensors(const Cursor& in, std::uint64_t file_bytes, GgufHeader& header) {
  const std::uint64_t data_bytes = file_bytes > header.data_offset ? file_bytes - header.data_offset : 0;
  for (TensorInfo& info : header.tensors) {
    if (info.offset % header.alignment != 0)
      in.fail(format("tensor '{}' begins at {}, which is not a multiple of {}", printable(info.name), info.offset,
                     header.alignment));
    if (info.offset > data_bytes || info.bytes > data_bytes - info.offset)
      in.fail(format("tensor '{}' has {} bytes at {}, the file has {} bytes of data", printable(info.name), info.bytes,
                     info.offset, data_bytes));
    info.offset += header.data_offset;
  }
  std::vector<const TensorInfo*> by_offset;
  for (const TensorInfo& info : header.tensors)
    if (info.bytes > 0) by_offset.push_back(&info);
  std::ranges::sort(by_offset, {}, &TensorInfo::offset);
  for (std::size_t i = 1; i < by_offset.size(); ++i) {
    const TensorInfo& before = *by_offset[i - 1];
    if (before.offset + before.bytes > by_offset[i]->offset)
      in.fail(format("tensors '{}' and '{}' overlap", printable(before.name), printable(by_offset[i]->name)));
  }
}

}  // namespace

GgufHeader parse_gguf(std::span<const std::byte> file, const std::string& what) {
  Cursor in(file, what);
  GgufHeader header;
  header.version = read_version(in);
  const std::uint64_t tensors = in.count("the number of tensors", kGgufTensorsMax, kTensorBytesMin);
  const std::uint64_t metadata = in.count("the number of metadata", kGgufMetadataMax, kMetadataBytesMin);
  read_metadata(in, file, metadata, header);
  header.alignment = alignment_of(in, header);
  read_tensors(in, tensors, header);
  header.data_offset = (in.position() + header.alignment - 1) / header.alignment * header.alignment;
  place_tensors(in, file.size(), header);
  return header;
}

}  // namespace tandem
