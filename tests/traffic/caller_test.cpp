// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "traffic/caller.h"

#include <gmock/gmock.h>

#include "tests/base/error_of.h"
#include "tests/serve/test_server.h"

namespace tandem {
namespace {

using ::testing::HasSubstr;

TEST(Caller, gets_an_answer_or_says_what_is_wrong) {
  TestServerConfig config;
  config.settings.api_keys = {"a-key-of-the-test"};
  TestServer server(std::move(config));
  const Endpoints to = look_up(parse_server_address("http://localhost:" + std::to_string(server.port()) + "/v1"));
  const auto models = [&](const std::string& key) {
    return call_and_wait(to, request_text(to.address, "/models", key, ""), 10'000);
  };
  EXPECT_EQ(Json::parse(models("a-key-of-the-test"))["data"][0]["id"], "llama");
  EXPECT_THAT(error_of([&] { models("another"); }).message(), HasSubstr("status 401"));
}

TEST(Caller, nobody_there) {
  int port = 0;
  {
    TestServer server;
    port = server.port();
  }
  const Endpoints to = look_up(parse_server_address("http://127.0.0.1:" + std::to_string(port)));
  EXPECT_THAT(error_of([&] { call_and_wait(to, request_text(to.address, "/", "", ""), 10'000); }).message(),
              HasSubstr("cannot connect"));
  EXPECT_THAT(error_of([] { look_up({.host = "no.such.host.invalid", .port = 80, .base = ""}); }).message(),
              HasSubstr("has no address"));
}

}  // namespace
}  // namespace tandem
