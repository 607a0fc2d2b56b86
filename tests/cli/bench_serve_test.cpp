// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// tandem bench serve as a program, against a server in this process. The parts have tests of their own in
// tests/traffic.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "base/json.h"
#include "cli/command.h"
#include "tests/cli/program.h"
#include "tests/serve/test_server.h"

namespace tandem {
namespace {

using ::testing::HasSubstr;

std::string url_of(const TestServer& server) {
  return "http://127.0.0.1:" + std::to_string(server.port()) + "/v1";
}

TEST(BenchServe, tells_latencies_throughput_and_goodput) {
  TestServer server;
  const std::vector<std::string> arguments = {"bench",           "serve", "--url",          url_of(server),
                                              "--requests",      "12",    "--input-tokens", "4:8",
                                              "--output-tokens", "6",     "--concurrency",  "4"};
  const ProgramResult text = run_program(arguments);
  EXPECT_EQ(text.status, 0) << text.err;
  EXPECT_THAT(text.out, HasSubstr("12 × length"));
  std::vector<std::string> more = arguments;
  const std::string plot = ::testing::TempDir() + "tandem_bench_serve_test.svg";
  more.insert(more.end(), {"--json", "--plot", plot, "--rate", "500", "--endpoint", "completions",
                           "--first-token-ms-max", "60000"});
  const ProgramResult result = run_program(more);
  ASSERT_EQ(result.status, 0) << result.err;
  const Json json = Json::parse(result.out);
  EXPECT_EQ(json["settings"]["model"], "llama") << "asked for at /models";
  EXPECT_EQ(json["result"]["output_tokens"], 72);
  EXPECT_EQ(json["result"]["goodput"]["good"], 12);
  EXPECT_EQ(json["result"]["first_token_ms"]["count"], 12);
  std::stringstream svg;
  svg << std::ifstream(plot).rdbuf();
  EXPECT_THAT(svg.str(), HasSubstr("</svg>"));
  std::remove(plot.c_str());
}

TEST(BenchServe, faults_name_the_thing) {
  TestServer server;
  const std::vector<std::pair<std::vector<std::string>, std::string>> faults = {
      {{"--url", "https://a"}, "https://a"},
      {{"--url", "http://127.0.0.1:1/v1"}, "cannot connect"},
      {{"--url", url_of(server), "--input-tokens", "9:2"}, "9:2"},
      {{"--url", url_of(server), "--dataset", "/nowhere/data"}, "/nowhere/data"},
      {{"--url", url_of(server), "--plot", "/nowhere/plot"}, "/nowhere/plot"},
      {{"--url", url_of(server), "--concurrency", "0"}, "--concurrency"},
  };
  for (const auto& [arguments, expected] : faults) {
    std::vector<std::string> all = {"bench", "serve"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    const ProgramResult result = run_program(all);
    EXPECT_NE(result.status, 0) << expected;
    EXPECT_THAT(result.err, HasSubstr(expected));
  }
  const ProgramResult refused = run_program(
      {"bench", "serve", "--url", url_of(server), "--requests", "3", "--output-tokens", "5000", "--model", "llama"});
  EXPECT_EQ(refused.status, 1) << "no request went well";
  EXPECT_THAT(refused.out, HasSubstr("status 400"));
}

}  // namespace
}  // namespace tandem
