// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The tensor types a GGUF file may name: enough about each to list it and to check its size.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "tensor/dtype.h"

namespace tandem {

struct GgufTensorType {
  std::uint32_t number;
  std::string_view name;
  std::uint32_t block_elements;
  std::uint32_t block_bytes;
  std::optional<DType> dtype;  // none: listed only
};

// Null for a number we have never heard of.
const GgufTensorType* find_gguf_tensor_type(std::uint32_t number);

}  // namespace tandem
