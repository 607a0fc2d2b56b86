// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "serve/metrics.h"

#include <gmock/gmock.h>

#include <chrono>
#include <fstream>
#include <regex>
#include <sstream>
#include <thread>

#include "base/format.h"
#include "tests/serve/test_server.h"

namespace tandem {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(Metrics, histograms_count_up_to_their_bounds) {
  static constexpr double kBounds[] = {1, 2};
  Histogram histogram(kBounds);
  histogram.observe(0.5);
  histogram.observe(1);
  histogram.observe(1.5, 3);
  histogram.observe(9);
  std::string page;
  histogram.write(page, "h");
  EXPECT_EQ(page, "h_bucket{le=\"1\"} 2\nh_bucket{le=\"2\"} 5\nh_bucket{le=\"+Inf\"} 6\nh_sum 15\nh_count 6\n");
}

TEST(Metrics, the_page_has_every_metric_in_prometheus_form) {
  TestServerConfig config;
  config.layout = "2A1F";
  TestServer server(std::move(config));
  server.complete({{"max_tokens", 5}, {"temperature", 0}, {"ignore_eos", true}});
  server.complete({{"max_tokens", 0}});
  // An exchange is counted after its answer has left, so the client may be here first.
  const std::string refused = "tandem:http_responses_total{status=\"400\"} 1\n";
  HttpAnswer answer = get(server.port(), "/metrics");
  for (int i = 0; i < 500 && answer.body.find(refused) == std::string::npos; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    answer = get(server.port(), "/metrics");
  }
  EXPECT_THAT(answer.headers.at("content-type"), HasSubstr("text/plain; version=0.0.4"));
  for (const MetricRow& row : metric_rows())
    EXPECT_THAT(answer.body, HasSubstr(format("# TYPE {} {}\n", row.name, row.kind)));
  const std::regex line(R"(# (HELP|TYPE) .+|tandem:[a-z0-9_]+(\{[a-z_]+="[^"]*"\})? [-+0-9.e]+)");
  std::istringstream lines(answer.body);
  for (std::string text; std::getline(lines, text);) EXPECT_TRUE(std::regex_match(text, line)) << text;
  EXPECT_THAT(answer.body, HasSubstr("tandem:generation_tokens_total 5\n"));
  EXPECT_THAT(answer.body, HasSubstr("tandem:request_success_total{finished_reason=\"length\"} 1\n"));
  EXPECT_THAT(answer.body, HasSubstr(refused));
  EXPECT_THAT(answer.body, HasSubstr("tandem:time_to_first_token_seconds_count 1\n"));
  EXPECT_THAT(answer.body, HasSubstr("tandem:inter_token_latency_seconds_count"));
  for (const char* worker : {"A0", "A1", "F0"})
    EXPECT_THAT(answer.body, HasSubstr(format("tandem:worker_busy_seconds_total{{worker=\"{}\"}}", worker)));
  for (const char* role : {"attention", "ffn"})
    EXPECT_THAT(answer.body, HasSubstr(format("tandem:bubble_ratio{{role=\"{}\"}}", role)));
  EXPECT_THAT(answer.body, Not(HasSubstr("\ntandem:deployment_")));  // its workers are threads
}

TEST(Metrics, the_board_shows_metrics_that_there_are) {
  std::ifstream file("docs/grafana.json");
  ASSERT_TRUE(file);
  std::stringstream text;
  text << file.rdbuf();
  const Json board = Json::parse(text.str());
  EXPECT_GE(board["panels"].size(), 8U);
  std::string known;
  for (const MetricRow& row : metric_rows())
    known += std::string(row.name) + "\n" + std::string(row.name) + "_bucket\n";
  const std::string all = text.str();
  const std::regex name("tandem:[a-z0-9_]+");
  int used = 0;
  for (std::sregex_iterator at(all.begin(), all.end(), name), end; at != end; ++at, ++used)
    EXPECT_THAT(known, HasSubstr(at->str() + "\n"));
  EXPECT_GT(used, 10);
}

}  // namespace
}  // namespace tandem
