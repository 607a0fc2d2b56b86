// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "traffic/server_address.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace tandem {
namespace {

TEST(ServerAddress, parts_of_a_url) {
  const ServerAddress plain = parse_server_address("http://example:8000/v1/");
  EXPECT_EQ(plain.host, "example");
  EXPECT_EQ(plain.port, 8000);
  EXPECT_EQ(plain.base, "/v1");
  EXPECT_EQ(parse_server_address("http://a").port, 80);
  EXPECT_EQ(parse_server_address("http://a").base, "");
  EXPECT_EQ(parse_server_address("http://[::1]:81/x/y").host, "::1");
  EXPECT_EQ(parse_server_address("http://[::1]:81/x/y").port, 81);
}

TEST(ServerAddress, says_what_is_wrong) {
  for (const char* url :
       {"", "a:80", "https://a", "http://", "http://:80", "http://a:0", "http://a:65536", "http://a:x",
        "http://a:", "http://a/b c", "http://a/\r\nX: y", "http://[::1", "http://[::1]80"})
    EXPECT_THROW(parse_server_address(url), Error) << url;
}

}  // namespace
}  // namespace tandem
