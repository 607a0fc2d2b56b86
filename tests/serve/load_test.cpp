// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Load for as long as a user would try it: TANDEM_LOAD_SECONDS (60 unless said) for each layout. Not part of the fast
// suite (ctest -L load). Nothing is timed: what counts is that nothing is lost and nothing grows.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>

#include "base/format.h"
#include "tests/serve/test_server.h"
#include "tests/serve/used_memory.h"
#include "traffic/report.h"

namespace tandem {
namespace {

constexpr std::int64_t kStreams = 64;

double load_seconds() {
  const char* said = std::getenv("TANDEM_LOAD_SECONDS");
  return said ? std::atof(said) : 60;
}

class Load : public ::testing::TestWithParam<const char*> {
 protected:
  // 64 streams under way until the time is over, in rounds of fresh requests.
  void drive(TestServer& server, double seconds) {
    const Endpoints to = look_up(parse_server_address(format("http://127.0.0.1:{}/v1", server.port())));
    const RealClock clock;
    const Nanoseconds end = clock.now() + static_cast<Nanoseconds>(seconds * 1e9);
    do {
      const bool chat = ++rounds_ % 2 == 0;
      const std::vector<LoadRequest> workload = make_workload({.requests = 4 * kStreams,
                                                               .input = {1, 60},
                                                               .output = {1, 120},
                                                               .seed = rounds_,
                                                               .chat = chat,
                                                               .temperature = 0.8});
      const std::vector<LoadRecord> records = run_workload(
          workload, to, {.path = chat ? "/chat/completions" : "/completions", .concurrency = kStreams}, clock);
      for (std::size_t i = 0; i < records.size(); ++i) {
        ASSERT_TRUE(records[i].ok()) << records[i].error;
        ASSERT_EQ(records[i].finish_reason, "length");
        ASSERT_EQ(records[i].output_tokens, Json::parse(workload[i].body)["max_tokens"]);
        tokens_ += records[i].output_tokens;
      }
      streams_ += records.size();
    } while (clock.now() < end);
  }

  std::uint64_t rounds_ = 0;
  std::size_t streams_ = 0;
  std::int64_t tokens_ = 0;
};

TEST_P(Load, streams_lose_nothing_and_memory_stays_flat) {
  TestServerConfig config;
  config.layout = GetParam();
  TestServer server(config);
  const double seconds = load_seconds();
  drive(server, seconds / 4);  // until pools and arenas have the size they need
  if (HasFatalFailure()) return;
  const std::int64_t before = used_memory_bytes();
  drive(server, seconds * 3 / 4);
  if (HasFatalFailure()) return;
  EXPECT_TRUE(server.wait_idle());
  const std::int64_t grown = used_memory_bytes() - before;
  EXPECT_LT(grown, 32 << 20);
  const Metrics& metrics = server->service().metrics;
  EXPECT_EQ(metrics.answer_tokens, tokens_);
  EXPECT_EQ(metrics.clients_gone, 0);
  EXPECT_EQ(metrics.finished[static_cast<std::size_t>(FinishReason::kLength)], static_cast<std::int64_t>(streams_));
  std::printf("%s: %zu streams, %lld tokens, memory grew by %lld KiB\n", GetParam(), streams_,
              static_cast<long long>(tokens_), static_cast<long long>(grown / 1024));
}

INSTANTIATE_TEST_SUITE_P(Layouts, Load, ::testing::Values("local", "1A1F", "2A1F", "1A2F", "2A2F"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace tandem
