// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Writes safetensors files, from memory or from bytes that are made piece by piece while the file is written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
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

using SafetensorsMetadata = std::map<std::string, std::string>;

// Wide types come first and the header is padded, so that every tensor is aligned to its element. The file appears
// under its name when it is complete. Throws Error{kInvalidArgument} for a name given twice or data that do not fit
// their shape, {kUnsupported} for quantised types, and what the file system answers.
void write_safetensors(const std::string& path, std::span<const SafetensorsTensor> tensors,
                       const SafetensorsMetadata& metadata = {});

// A tensor whose bytes come later.
struct SafetensorsEntry {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;

  std::uint64_t bytes() const { return row_bytes(dtype, static_cast<std::size_t>(shape.elements())); }
};

// Where the bytes come from.
struct SafetensorsSource {
  // Makes bytes [offset, offset + out.size()) of the tensor with this index. Asked from all threads at once; offsets
  // are multiples of kSafetensorsPieceBytes, and no piece is longer.
  std::function<void(std::size_t index, std::uint64_t offset, std::span<std::byte> out)> fill;
  int threads = 1;
  std::function<void(std::int64_t bytes)> listener;  // told of each piece, by one thread at a time; may be empty
};

inline constexpr std::size_t kSafetensorsPieceBytes = 4 << 20;

// The same file; takes threads · kSafetensorsPieceBytes of memory, however large the tensors are. What fill throws goes
// on to the caller, and no file is left.
void write_safetensors(const std::string& path, std::span<const SafetensorsEntry> tensors,
                       const SafetensorsSource& source, const SafetensorsMetadata& metadata = {});

}  // namespace tandem
