// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Addresses of hosts, and which of them belong to the public network.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace tandem {

struct IpAddress {
  bool v6 = false;
  std::array<std::uint8_t, 16> bytes{};  // in network order; of IPv4 the first four

  bool operator==(const IpAddress&) const = default;
};

// "192.0.2.1", "2001:db8::1". Throws Error{kInvalidArgument}.
IpAddress parse_ip_address(const std::string& text);

// Whether a packet to it leaves for the public network: not this machine, its link or its site, nobody's documentation
// or measurements, no group of receivers, and no IPv6 address that only wraps one of IPv4.
bool is_public(const IpAddress& address);

}  // namespace tandem
