// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A sound GGUF file with tensors of a type that this build does not read.
#pragma once

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "tests/checkpoint/bytes.h"
#include "tests/checkpoint/temporary_folder.h"

namespace tandem {

// Copies the file at path with every Q4_0 tensor named as IQ4_NL, which takes as many bytes. Returns the copy's path.
inline std::string retyped_gguf(const TemporaryFolder& folder, const std::string& path) {
  constexpr std::uint32_t kIq4Nl = 20;
  const auto checkpoint = Checkpoint::open(path);
  const MappedFile original = MappedFile::open(path);
  std::vector<std::byte> bytes(original.bytes().begin(), original.bytes().end());
  for (const TensorInfo& info : checkpoint->tensors()) {
    if (info.dtype != DType::kQ4_0) continue;
    // An entry is the name with its length, the rank, the dimensions, the type, the offset.
    const Bytes name = Bytes().string(info.name);
    const auto entry = std::search(bytes.begin(), bytes.end(), name.span().begin(), name.span().end());
    const std::size_t before = name.span().size() + 4 + 8 * static_cast<std::size_t>(info.shape.rank);
    const auto type = entry + static_cast<std::ptrdiff_t>(before);
    std::memcpy(&*type, &kIq4Nl, sizeof kIq4Nl);
  }
  return folder.write("retyped.gguf", bytes);
}

}  // namespace tandem
