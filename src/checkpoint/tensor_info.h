// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What a model file says about one tensor, and the arithmetic both file formats need to say it safely.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "tensor/dtype.h"
#include "tensor/tensor.h"

namespace tandem {

// More elements than any model has, and few enough that element counts times any element size fit 64 bits.
inline constexpr std::uint64_t kTensorElementsMax = 1ull << 48;
inline constexpr std::size_t kTensorNameBytesMax = 1024;

struct TensorInfo {
  std::string name;
  std::optional<DType> dtype;  // none: a type that this build does not read, still listed by its name
  std::string type_name;       // in the file's words: "BF16", "Q4_K", "F32 of rank 5"
  Shape shape;                 // row-major; dimensions beyond the fourth are folded into it, and dtype is none
  std::uint64_t offset = 0;    // from the start of the file; no alignment is promised
  std::uint64_t bytes = 0;     // 0 where the size of the type is not known
  int file = 0;                // which of the checkpoint's files
};

// The product of the dimensions; none if a dimension or the product, zeros left out, is over kTensorElementsMax.
std::optional<std::uint64_t> element_count(std::span<const std::uint64_t> dims);

// dims must have passed element_count. What exceeds four dimensions is folded into the fourth.
Shape to_shape(std::span<const std::uint64_t> dims);

// A name from outside for a message: control characters replaced, shortened.
std::string printable(std::string_view text);

}  // namespace tandem
