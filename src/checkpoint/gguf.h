// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// GGUF files, versions 2 and 3, little-endian: metadata and the list of tensors.
//
// The parser works on bytes in memory and copies none of the weights. Every count, length, dimension and offset is
// compared with a named limit and with the bytes that are there before it is used. Tensor types that we do not compute
// with are listed under their GGUF names; they are refused where a tensor is used, not here, so that any file can be
// inspected. Format: the GGUF specification in the ggml project's documents.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "checkpoint/tensor_info.h"

namespace tandem {

inline constexpr std::uint64_t kGgufTensorsMax = 65536;
inline constexpr std::uint64_t kGgufMetadataMax = 16384;
inline constexpr std::uint64_t kGgufKeyBytesMax = 65535;
inline constexpr std::uint64_t kGgufStringBytesMax = 1 << 20;  // chat templates are the longest
inline constexpr std::uint64_t kGgufArrayElementsMax = 4 << 20;
inline constexpr std::uint64_t kGgufAlignmentDefault = 32;
inline constexpr std::uint64_t kGgufAlignmentMax = 1 << 20;

// The numbers are those of the file.
enum class GgufValueType : std::uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};

std::string_view name(GgufValueType type);

// An array in its place in the file, already validated. Never an array of arrays.
struct GgufArray {
  GgufValueType element = GgufValueType::kU8;
  std::uint64_t count = 0;
  std::span<const std::byte> bytes;
};

struct GgufHeader {
  std::uint32_t version = 0;
  std::uint64_t alignment = kGgufAlignmentDefault;
  std::uint64_t data_offset = 0;                         // where tensor data begin
  Json scalars = Json::object();                         // metadata that are no arrays: key → value
  std::map<std::string, GgufArray, std::less<>> arrays;  // views into the bytes given to parse_gguf
  std::vector<TensorInfo> tensors;                       // in file order, offsets from the start of the file
};

// what names the file in messages. Throws Error{kInvalidData}, or {kUnsupported} for a version or construct that we
// know and do not read.
GgufHeader parse_gguf(std::span<const std::byte> file, const std::string& what);

// The elements of an array. strings are views into the file. Throws Error{kInvalidData} if the element type does not
// fit: integers takes whole numbers that fit 64 signed bits, numbers any of the number types.
std::vector<std::string_view> strings(const GgufArray& array);
std::vector<std::int64_t> integers(const GgufArray& array);
std::vector<double> numbers(const GgufArray& array);

}  // namespace tandem
