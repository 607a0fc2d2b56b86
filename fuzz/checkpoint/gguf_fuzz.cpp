// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Any bytes as a GGUF file: an Error, or a header whose every view and range can be read.
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/check.h"
#include "base/error.h"
#include "checkpoint/gguf.h"

namespace {

using namespace tandem;

void read_array(const GgufArray& array) {
  std::size_t count = array.count;
  switch (array.element) {
    case GgufValueType::kBool:
      break;
    case GgufValueType::kString:
      count = strings(array).size();
      break;
    default:
      count = numbers(array).size();
      break;
  }
  TANDEM_CHECK(count == array.count, "an array has another length than it says");
}

void read_all(const GgufHeader& header, std::span<const std::byte> file) {
  to_line(header.scalars);
  for (const auto& [key, array] : header.arrays) {
    TANDEM_CHECK(!header.scalars.contains(key), "a key is a scalar and an array");
    read_array(array);
  }
  volatile std::uint8_t sink = 0;
  for (const TensorInfo& info : header.tensors) {
    TANDEM_CHECK(info.shape.elements() >= 0, "a shape overflows");
    TANDEM_CHECK(info.offset % header.alignment == 0, "a tensor is not aligned");
    TANDEM_CHECK(info.offset >= header.data_offset, "a tensor lies in the header");
    TANDEM_CHECK(!info.dtype || info.bytes == row_bytes(*info.dtype, static_cast<std::size_t>(info.shape.elements())),
                 "a tensor has another size than its shape");
    if (info.bytes == 0) continue;
    TANDEM_CHECK(info.offset < file.size() && info.bytes <= file.size() - info.offset, "a tensor leaves the file");
    sink = static_cast<std::uint8_t>(file[info.offset]) ^ static_cast<std::uint8_t>(file[info.offset + info.bytes - 1]);
  }
  (void)sink;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span file(reinterpret_cast<const std::byte*>(data), size);
  try {
    read_all(parse_gguf(file, "input"), file);
  } catch (const Error&) {
  }
  return 0;
}
