// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "transport/ucx/hello.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "base/check.h"
#include "base/format.h"
#include "transport/frame.h"

namespace tandem {
namespace {

// As it lies in the message, little-endian; the address follows.
struct Wire {
  static constexpr std::uint32_t kMagic = 0x58555454;  // "TTUX"
  static constexpr std::uint32_t kVersion = 1;

  std::uint32_t magic = kMagic;
  std::uint32_t version = kVersion;
  std::int32_t from = 0;
  std::int32_t to = 0;
  std::int32_t peers = 0;
  std::int32_t sends_max = 0;
  std::uint64_t message_bytes_max = 0;
  std::uint64_t token = 0;
  std::uint64_t address_bytes = 0;
  std::uint64_t checksum = 0;  // of all with this field 0
};
static_assert(sizeof(Wire) == 56 && std::has_unique_object_representations_v<Wire>);

std::uint64_t checksum_of(Wire wire, std::span<const std::byte> address) {
  wire.checksum = 0;
  return checksum(address, checksum(std::as_bytes(std::span(&wire, 1))));
}

}  // namespace

std::vector<std::byte> to_bytes(const UcxHello& hello) {
  TANDEM_CHECK(hello.address.size() <= UcxHello::kAddressBytesMax,
               "the address of a UCX worker is longer than expected");
  Wire wire = {.from = hello.from,
               .to = hello.to,
               .peers = hello.peers,
               .sends_max = hello.sends_max,
               .message_bytes_max = hello.message_bytes_max,
               .token = hello.token,
               .address_bytes = hello.address.size()};
  wire.checksum = checksum_of(wire, hello.address);
  std::vector<std::byte> bytes(sizeof wire + hello.address.size());
  std::memcpy(bytes.data(), &wire, sizeof wire);
  std::ranges::copy(hello.address, bytes.begin() + sizeof wire);
  return bytes;
}

Result<UcxHello> parse_hello(std::span<const std::byte> bytes) {
  const auto refuse = [](const std::string& why) {
    return Result<UcxHello>(ErrorCode::kInvalidData, "ucx hello: " + why);
  };
  Wire wire;
  if (bytes.size() < sizeof wire) return refuse(format("{} bytes, at least {} are needed", bytes.size(), sizeof wire));
  std::memcpy(&wire, bytes.data(), sizeof wire);
  const std::span<const std::byte> address = bytes.subspan(sizeof wire);
  if (wire.magic != Wire::kMagic) return refuse(format("magic {:#x}, expected {:#x}", wire.magic, Wire::kMagic));
  if (wire.version != Wire::kVersion) return refuse(format("version {}, this is {}", wire.version, Wire::kVersion));
  if (wire.address_bytes != address.size() || address.empty() || address.size() > UcxHello::kAddressBytesMax)
    return refuse(format("address of {} bytes in a message with {}, limits are 1 and {}", wire.address_bytes,
                         address.size(), UcxHello::kAddressBytesMax));
  if (wire.checksum != checksum_of(wire, address)) return refuse("the checksum does not fit");
  if (wire.from < 0 || wire.from >= wire.peers || wire.to < 0 || wire.to >= wire.peers)
    return refuse(format("from rank {} to rank {} of {} peers", wire.from, wire.to, wire.peers));
  return UcxHello{.from = wire.from,
                  .to = wire.to,
                  .peers = wire.peers,
                  .sends_max = wire.sends_max,
                  .message_bytes_max = wire.message_bytes_max,
                  .token = wire.token,
                  .address = {address.begin(), address.end()}};
}

}  // namespace tandem
