// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Safetensors files: the header, as strict as the official library reads it.
//
// A file is 8 bytes of header length, a JSON header that names each tensor's type, shape and byte range, and the data.
// Ranges must follow one another without hole or overlap and end where the file ends, so that no byte can hide or be
// read twice. Types that we do not compute with are listed under their names and refused where a tensor is used.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/tensor_info.h"

namespace tandem {

inline constexpr std::uint64_t kSafetensorsHeaderBytesMax = 100'000'000;  // the official library's limit
inline constexpr std::size_t kSafetensorsRankMax = 16;
inline constexpr std::size_t kSafetensorsTensorsMax = 1 << 20;

struct SafetensorsHeader {
  std::map<std::string, std::string> metadata;  // the "__metadata__" entry
  std::vector<TensorInfo> tensors;              // by offset, counted from the start of the file
};

// what names the file in messages. Throws Error{kInvalidData}.
SafetensorsHeader parse_safetensors(std::span<const std::byte> file, const std::string& what);

// "BF16" for kBF16; empty for the quantised types, which the format does not have.
std::string_view safetensors_name(DType dtype);

}  // namespace tandem
