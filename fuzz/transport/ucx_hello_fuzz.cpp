// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Arbitrary bytes as the hello of a ucx endpoint. What parse_hello accepts must lie inside its limits and be written
// again as the same bytes; so that mutations also reach what stands behind the checksum, the same fields are written
// with one that fits.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "base/check.h"
#include "transport/ucx/hello.h"

namespace {

void check(std::span<const std::byte> bytes) {
  tandem::Result<tandem::UcxHello> result = tandem::parse_hello(bytes);
  if (!result) {
    TANDEM_CHECK(!result.error().message().empty(), "a refusal says why");
    return;
  }
  const tandem::UcxHello& hello = result.value();
  TANDEM_CHECK(hello.from >= 0 && hello.from < hello.peers && hello.to >= 0 && hello.to < hello.peers,
               "accepted ranks lie inside of peers");
  const std::vector<std::byte> again = tandem::to_bytes(hello);
  TANDEM_CHECK(again.size() == bytes.size() && std::memcmp(again.data(), bytes.data(), again.size()) == 0,
               "an accepted hello is written as it was read");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span<const std::byte> bytes = std::as_bytes(std::span(data, size));
  check(bytes);

  tandem::UcxHello hello;
  constexpr std::size_t kFields = 12;
  if (size < kFields || size - kFields > tandem::UcxHello::kAddressBytesMax) return 0;
  std::memcpy(&hello.from, data, 4);
  std::memcpy(&hello.to, data + 4, 4);
  std::memcpy(&hello.peers, data + 8, 4);
  hello.address.assign(bytes.begin() + kFields, bytes.end());
  check(tandem::to_bytes(hello));
  return 0;
}
