// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Writes safetensors files.
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>

#include "tensor/dtype.h"
#include "tensor/tensor.h"

namespace tandem {

struct SafetensorsTensor {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;
  std::span<const std::byte> data;
};

// Wide types come first and the header is padded, so that every tensor is aligned to its element. The file appears
// under its name when it is complete. Throws Error{kInvalidArgument} for a name given twice or data that do not fit
// their shape, {kUnsupported} for quantised types, and what the file system answers.
void write_safetensors(const std::string& path, std::span<const SafetensorsTensor> tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace tandem
