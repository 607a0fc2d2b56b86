// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Any bytes as a safetensors file: an Error, or tensors that cover the data exactly once.
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/check.h"
#include "base/error.h"
#include "checkpoint/safetensors.h"

namespace {

using namespace tandem;

void read_all(const SafetensorsHeader& header, std::span<const std::byte> file) {
  if (header.tensors.empty()) return;
  std::uint64_t end = header.tensors.front().offset;
  TANDEM_CHECK(end >= 8, "a tensor lies in the header");
  for (const TensorInfo& info : header.tensors) {
    TANDEM_CHECK(info.offset == end, "a hole or an overlap");
    TANDEM_CHECK(info.shape.elements() >= 0, "a shape overflows");
    TANDEM_CHECK(!info.dtype || info.bytes == row_bytes(*info.dtype, static_cast<std::size_t>(info.shape.elements())),
                 "a tensor has another size than its shape");
    end += info.bytes;
  }
  TANDEM_CHECK(end == file.size(), "the tensors do not end where the file does");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span file(reinterpret_cast<const std::byte*>(data), size);
  try {
    read_all(parse_safetensors(file, "input"), file);
  } catch (const Error&) {
  }
  return 0;
}
