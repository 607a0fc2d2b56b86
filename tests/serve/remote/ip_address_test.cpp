// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "serve/remote/ip_address.h"

#include <gmock/gmock.h>

#include "tests/base/error_of.h"

namespace tandem {
namespace {

TEST(IpAddress, IsReadInNetworkOrder) {
  const IpAddress v4 = parse_ip_address("192.0.2.7");
  EXPECT_FALSE(v4.v6);
  EXPECT_EQ(v4.bytes[0], 192);
  EXPECT_EQ(v4.bytes[3], 7);
  const IpAddress v6 = parse_ip_address("2001:db8::5");
  EXPECT_TRUE(v6.v6);
  EXPECT_EQ(v6.bytes[1], 1);
  EXPECT_EQ(v6.bytes[15], 5);
  for (const char* text : {"", "127.1", "2130706433", "0177.0.0.1", "1.2.3.4.5", "::g", "a.example", "[::1]"})
    EXPECT_EQ(error_of([&] { parse_ip_address(text); }).code(), ErrorCode::kInvalidArgument) << text;
}

// The first and the last of every range, and what stands beside it.
TEST(IpAddress, OfThePublicNetworkAreTold) {
  for (const char* text : {"0.0.0.0",
                           "0.255.255.255",
                           "10.0.0.0",
                           "10.255.255.255",
                           "100.64.0.0",
                           "100.127.255.255",
                           "127.0.0.1",
                           "127.255.255.255",
                           "169.254.0.0",
                           "169.254.169.254",
                           "172.16.0.0",
                           "172.31.255.255",
                           "192.0.0.1",
                           "192.0.2.1",
                           "192.88.99.1",
                           "192.168.0.0",
                           "192.168.255.255",
                           "198.18.0.0",
                           "198.19.255.255",
                           "198.51.100.1",
                           "203.0.113.1",
                           "224.0.0.1",
                           "239.255.255.255",
                           "240.0.0.1",
                           "255.255.255.255",
                           "::",
                           "::1",
                           "::ffff:127.0.0.1",
                           "::ffff:8.8.8.8",
                           "::8.8.8.8",
                           "64:ff9b::a00:1",
                           "64:ff9b:1::1",
                           "100::1",
                           "fe80::1",
                           "fec0::1",
                           "fc00::1",
                           "fdff::1",
                           "ff02::1",
                           "2001::1",
                           "2001:1ff:ffff::",
                           "2001:db8::1",
                           "2002:7f00:1::",
                           "3fff:fff::1",
                           "4000::1",
                           "5f00::1"})
    EXPECT_FALSE(is_public(parse_ip_address(text))) << text;
  for (const char* text :
       {"1.0.0.0",        "8.8.8.8",         "9.255.255.255",   "11.0.0.0",        "100.63.255.255",
        "100.128.0.0",    "126.255.255.255", "128.0.0.0",       "169.253.255.255", "169.255.0.0",
        "172.15.255.255", "172.32.0.0",      "192.0.1.0",       "192.167.255.255", "192.169.0.0",
        "198.17.255.255", "198.20.0.0",      "223.255.255.255", "2001:200::1",     "2001:4860:4860::8888",
        "2001:db9::1",    "2003::1",         "2600::1",         "3fff:1000::1"})
    EXPECT_TRUE(is_public(parse_ip_address(text))) << text;
}

}  // namespace
}  // namespace tandem
