// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "serve/request_log.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <sstream>

#include "base/format.h"
#include "tests/base/error_of.h"
#include "tests/serve/test_server.h"

namespace tandem {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string text_of(const std::string& path) {
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

class RequestLogs : public ::testing::Test {
 protected:
  void SetUp() override { std::remove(path_.c_str()); }
  const std::string path_ = ::testing::TempDir() + format("request-{}.log", getpid());
  Metrics metrics_;
};

TEST_F(RequestLogs, lines_are_json_or_text) {
  const OrderedJson line{{"path", "/a b\n\"c\""}, {"status", 200}, {"method", "GET"}};
  RequestLog(path_, "json", metrics_).write(line);
  const Json read = Json::parse(text_of(path_));
  EXPECT_EQ(read["path"], "/a b\n\"c\"");
  EXPECT_TRUE(read.contains("time"));
  std::remove(path_.c_str());
  RequestLog(path_, "text", metrics_).write(line);
  EXPECT_THAT(text_of(path_), HasSubstr(R"( path="/a b\n\"c\"" status=200 method=GET)"));
  RequestLog("", "off", metrics_).write(line);
  EXPECT_EQ(metrics_.log_lines_lost, 0);
}

TEST_F(RequestLogs, a_full_disk_costs_lines_and_nothing_else) {
  TestServerConfig config;
  config.settings.log_file = "/dev/full";
  TestServer server(std::move(config));
  EXPECT_EQ(server.complete({{"max_tokens", 2}}).status, 200);
  EXPECT_EQ(server.complete({{"max_tokens", 2}}).status, 200);
  EXPECT_TRUE(eventually([&] { return server->service().metrics.log_lines_lost == 2; }));
}

TEST_F(RequestLogs, says_which_file_it_cannot_open) {
  EXPECT_THAT(error_of([&] { RequestLog("/no/such/folder/log", "text", metrics_); }).message(),
              HasSubstr("/no/such/folder/log"));
}

TEST_F(RequestLogs, never_tells_prompts_answers_or_keys) {
  TestServerConfig config;
  config.settings.log_file = path_;
  config.settings.log_format = "json";
  config.settings.api_keys = {"the-secret-key"};
  std::string text;
  {
    TestServer server(std::move(config));
    const HttpAnswer answer =
        server.complete({{"prompt", "my private words"}, {"max_tokens", 4}, {"logit_bias", {{"70", 100}}}},
                        "Authorization: Bearer the-secret-key\r\n");
    EXPECT_EQ(answer.status, 200);
    EXPECT_EQ(
        post_text(server.port(), "/v1/completions", "{\"my private words", "Authorization: Bearer the-secret-key\r\n")
            .status,
        400);
    // A line is written after its answer, by whichever thread gave it.
    EXPECT_TRUE(eventually([&] { return std::ranges::count(text = text_of(path_), '\n') == 2; }));
  }
  EXPECT_THAT(text, Not(HasSubstr("private")));
  EXPECT_THAT(text, Not(HasSubstr("secret")));
  Json line = Json::parse(text.substr(0, text.find('\n')));
  if (line["status"] != 200) line = Json::parse(text.substr(text.find('\n')));
  EXPECT_EQ(line["answer_tokens"], 4);
  EXPECT_EQ(line["finish"], "length");
  EXPECT_EQ(line["client"], 1);
  EXPECT_EQ(line["status"], 200);
}

}  // namespace
}  // namespace tandem
