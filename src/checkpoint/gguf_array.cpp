// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The elements of GGUF arrays. parse_gguf has checked every byte of them; here they only change their type.
#include <cstring>
#include <limits>

#include "base/error.h"
#include "base/format.h"
#include "checkpoint/gguf.h"

namespace tandem {

namespace {

template <class T>
T load(const std::byte* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

template <class Out, class In>
std::vector<Out> widen(const GgufArray& array) {
  std::vector<Out> values(array.count);
  for (std::uint64_t i = 0; i < array.count; ++i)
    values[i] = static_cast<Out>(load<In>(array.bytes.data() + i * sizeof(In)));
  return values;
}

template <class Out>
std::vector<Out> widen_integers(const GgufArray& array) {
  switch (array.element) {
    case GgufValueType::kU8:
      return widen<Out, std::uint8_t>(array);
    case GgufValueType::kI8:
      return widen<Out, std::int8_t>(array);
    case GgufValueType::kU16:
      return widen<Out, std::uint16_t>(array);
    case GgufValueType::kI16:
      return widen<Out, std::int16_t>(array);
    case GgufValueType::kU32:
      return widen<Out, std::uint32_t>(array);
    case GgufValueType::kI32:
      return widen<Out, std::int32_t>(array);
    case GgufValueType::kU64:
      return widen<Out, std::uint64_t>(array);
    case GgufValueType::kI64:
      return widen<Out, std::int64_t>(array);
    default:
      throw Error(ErrorCode::kInvalidData, format("an array of {}, numbers were expected", name(array.element)));
  }
}

}  // namespace

std::string_view name(GgufValueType type) {
  constexpr std::string_view kNames[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                         "bool", "string", "array", "u64", "i64", "f64"};
  return kNames[static_cast<std::uint32_t>(type)];
}

std::vector<std::string_view> strings(const GgufArray& array) {
  if (array.element != GgufValueType::kString)
    throw Error(ErrorCode::kInvalidData, format("an array of {}, strings were expected", name(array.element)));
  std::vector<std::string_view> values;
  values.reserve(array.count);
  const std::byte* p = array.bytes.data();
  for (std::uint64_t i = 0; i < array.count; ++i) {
    const auto length = load<std::uint64_t>(p);
    values.emplace_back(reinterpret_cast<const char*>(p + 8), length);
    p += 8 + length;
  }
  return values;
}

std::vector<std::int64_t> integers(const GgufArray& array) {
  if (array.element == GgufValueType::kU64)
    for (const std::uint64_t value : widen<std::uint64_t, std::uint64_t>(array))
      if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
        throw Error(ErrorCode::kInvalidData, format("an array holds {}, which is over 2^63 - 1", value));
  return widen_integers<std::int64_t>(array);
}

std::vector<double> numbers(const GgufArray& array) {
  if (array.element == GgufValueType::kF32) return widen<double, float>(array);
  if (array.element == GgufValueType::kF64) return widen<double, double>(array);
  return widen_integers<double>(array);
}

}  // namespace tandem
