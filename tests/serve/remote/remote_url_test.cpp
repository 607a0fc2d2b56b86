// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "serve/remote/remote_url.h"

#include <gmock/gmock.h>

#include "tests/base/error_of.h"

namespace tandem {
namespace {

using testing::HasSubstr;

std::string refusal(std::string_view url) {
  return error_of([&] { parse_remote_url(url); }).message();
}

TEST(RemoteUrl, IsReadIntoWhatIsLookedUpAndAskedFor) {
  RemoteUrl url = parse_remote_url("https://pictures.example/a%20b.png?size=2&x=@#part");
  EXPECT_TRUE(url.tls);
  EXPECT_EQ(url.host, (RemoteHost{"pictures.example", 443}));
  EXPECT_EQ(url.target, "/a%20b.png?size=2&x=@");
  url = parse_remote_url("HTTP://Pictures.EXAMPLE:8080?q");
  EXPECT_FALSE(url.tls);
  EXPECT_EQ(url.host, (RemoteHost{"pictures.example", 8080}));
  EXPECT_EQ(url.target, "/?q");
  EXPECT_EQ(parse_remote_url("http://localhost").host, (RemoteHost{"localhost", 80}));
}

TEST(RemoteUrl, OtherSchemesAreNone) {
  for (const char* url : {"", "http:/a.example", "//a.example/x", "ftp://a.example", "file:///etc/passwd",
                          "data:image/png;base64,", "https:a.example", "httpx://a.example"}) {
    EXPECT_FALSE(is_remote_url(url)) << url;
    EXPECT_THAT(refusal(url), HasSubstr("must begin with http:// or https://")) << url;
  }
}

// Every spelling by which readers of URLs have been brought to disagree about the host.
TEST(RemoteUrl, AHostIsAPlainName) {
  for (const char* url : {"http://good.example@evil.example/",
                          "http://good.example:80@evil.example/",
                          "http://@evil.example/",
                          "http://good.example%2eevil.example/",
                          "http://good.example%00.evil.example/",
                          "http://[::1]/",
                          "http://[::ffff:127.0.0.1]:80/",
                          "http://127.0.0.1/",
                          "http://127.1/",
                          "http://2130706433/",
                          "http://0x7f000001/",
                          "http://0x7f.1/",
                          "http://0177.0.0.1/",
                          "http://0/",
                          "http:///x",
                          "http://:80/",
                          "http://.example/",
                          "http://a..example/",
                          "http://good.example./",
                          "http://-a.example/",
                          "http://a_b.example/",
                          "http://a,b.example/",
                          "http://g\xc3\xb6\xc3\xb6\x64.example/",
                          "http://good.example;evil.example/",
                          "http://good.example\t.evil/"})
    EXPECT_THAT(refusal(url), testing::AnyOf(HasSubstr("its host is no name"), HasSubstr("its port is not"),
                                             HasSubstr("a character that must be escaped")))
        << url;
  EXPECT_THAT(refusal("http://good.example\\@evil.example/"), HasSubstr("must be escaped"));
  EXPECT_THAT(refusal("http://" + std::string(64, 'a') + ".example/"), HasSubstr("no name"));
  EXPECT_THAT(refusal("http://a.example/" + std::string(8192, 'a')), HasSubstr("limit is 8192"));
}

TEST(RemoteUrl, APortIsANumber) {
  for (const char* port : {"", "0", "65536", "-1", "80x", "+80", " 80", "99999999999"})
    EXPECT_NE(refusal(std::string("http://a.example:") + port + "/"), "") << port;
  EXPECT_EQ(parse_remote_url("http://a.example:65535/").host.port, 65535);
}

TEST(RemoteUrl, NothingInTheTargetEndsTheRequestLine) {
  for (const char* url : {"http://a.example/x y", "http://a.example/x\r\nHost: b", "http://a.example/\x7f",
                          "http://a.example/caf\xc3\xa9"})
    EXPECT_THAT(refusal(url), HasSubstr("must be escaped")) << url;
}

TEST(AllowedHosts, MeanExactlyOneNameAndPort) {
  const RemoteUrl plain = parse_remote_url("http://a.example/x"), tls = parse_remote_url("https://a.example/x");
  for (const RemoteUrl& url : {plain, tls}) {
    EXPECT_TRUE(allows("a.example", url));
    EXPECT_TRUE(allows("A.Example", url));
    for (const char* other : {"example", "b.a.example", "a.example.org", "aa.example", "a.example:8080"})
      EXPECT_FALSE(allows(other, url)) << other;
  }
  EXPECT_TRUE(allows("a.example:443", tls));
  EXPECT_FALSE(allows("a.example:443", plain));
  const RemoteUrl elsewhere = parse_remote_url("https://a.example:8443/x");
  EXPECT_FALSE(allows("a.example", elsewhere));
  EXPECT_TRUE(allows("a.example:8443", elsewhere));
}

TEST(AllowedHosts, ThatCanBeNoneAreRefusedByName) {
  for (const char* entry : {"", "*", "*.example", "http://a.example", "10.0.0.1", "a.example/x", "a.example:", "[::1]"})
    EXPECT_THAT(error_of([&] { check_allowed_host(entry); }).message(),
                HasSubstr(std::string("--allow-remote-images has ") + entry + ", must be HOST or HOST:PORT"));
  check_allowed_host("localhost");
  check_allowed_host("Pictures.Example:8080");
}

}  // namespace
}  // namespace tandem
