// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What two ucx endpoints tell each other before they can speak: who is meant, within which limits, with which token
// every message has to come, and the address of the worker, which only UCX can read. One message for each ordered pair
// of ranks.
//
// parse_hello takes bytes from outside. It cannot look into the address, which UCX believes: a hello may only come over
// a connection whose other end is known.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/error.h"
#include "transport/transport.h"

namespace tandem {

struct UcxHello {
  static constexpr std::size_t kAddressBytesMax = 64 << 10;

  PeerRank from = 0;
  PeerRank to = 0;
  std::int32_t peers = 0;
  std::int32_t sends_max = 0;
  std::uint64_t message_bytes_max = 0;
  std::uint64_t token = 0;  // `to` shows it with every message to `from`
  std::vector<std::byte> address;
};

std::vector<std::byte> to_bytes(const UcxHello& hello);

// Refuses: too short or long, wrong magic or version, a rank outside of peers, a length that is not the message's, a
// checksum that does not fit.
Result<UcxHello> parse_hello(std::span<const std::byte> bytes);

}  // namespace tandem
