// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "serve/remote/ip_address.h"

#include <arpa/inet.h>

#include <algorithm>

#include "base/error.h"
#include "base/format.h"

namespace tandem {

namespace {

struct Range {
  std::array<std::uint8_t, 16> first;
  int bits;  // of it that all addresses of the range share
};

bool holds(const Range& range, const IpAddress& address) {
  for (int bit = 0; bit < range.bits; ++bit) {
    const auto byte = static_cast<std::size_t>(bit / 8);
    const int mask = 0x80 >> bit % 8;
    if ((range.first[byte] & mask) != (address.bytes[byte] & mask)) return false;
  }
  return true;
}

// The registries of special-purpose addresses (RFC 6890 and what came after it).
constexpr Range kSpecialV4[] = {
    {{0}, 8},              // this network
    {{10}, 8},             // private
    {{100, 64}, 10},       // shared between a provider and its customers
    {{127}, 8},            // loopback
    {{169, 254}, 16},      // link-local, where clouds keep their metadata
    {{172, 16}, 12},       // private
    {{192, 0, 0}, 24},     // protocols
    {{192, 0, 2}, 24},     // documentation
    {{192, 88, 99}, 24},   // relays of 6to4
    {{192, 168}, 16},      // private
    {{198, 18}, 15},       // measurements
    {{198, 51, 100}, 24},  // documentation
    {{203, 0, 113}, 24},   // documentation
    {{224}, 4},            // multicast
    {{240}, 4},            // reserved, and broadcast
};

// Of IPv6 one eighth is given out; loopback, link-local, unique-local (ULA), multicast, mapped and translated IPv4 are
// all outside it.
constexpr Range kGlobalV6 = {{0x20}, 3};
constexpr Range kSpecialV6[] = {
    {{0x20, 0x01, 0x00}, 23},        // protocols, among them Teredo, which wraps IPv4
    {{0x20, 0x01, 0x0d, 0xb8}, 32},  // documentation
    {{0x20, 0x02}, 16},              // 6to4, which wraps IPv4
    {{0x3f, 0xff}, 20},              // documentation
};

}  // namespace

IpAddress parse_ip_address(const std::string& text) {
  IpAddress address;
  address.v6 = text.find(':') != std::string::npos;
  if (::inet_pton(address.v6 ? AF_INET6 : AF_INET, text.c_str(), address.bytes.data()) != 1)
    throw Error(ErrorCode::kInvalidArgument, format("{} is no IP address", text));
  return address;
}

bool is_public(const IpAddress& address) {
  const auto in = [&](const Range& range) { return holds(range, address); };
  if (address.v6) return in(kGlobalV6) && std::ranges::none_of(kSpecialV6, in);
  return std::ranges::none_of(kSpecialV4, in);
}

}  // namespace tandem
