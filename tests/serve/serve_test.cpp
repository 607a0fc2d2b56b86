// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Many clients at once, in several layouts, and the end of a server under load.
#include "serve/serve.h"

#include <gmock/gmock.h>

#include <set>

#include "tests/serve/test_server.h"
#include "tests/serve/used_memory.h"

namespace tandem {
namespace {

// Answers of every client, several in a row, all streams at once: right counts, a finish reason, the right text.
void run_clients(TestServer& server, int clients, int rounds) {
  const auto request = [](int client) {
    return Json{{"prompt", "Client " + std::to_string(client % 8)},
                {"max_tokens", 8 + client % 23},
                {"temperature", 0.8},
                {"seed", client % 8},
                {"ignore_eos", true},
                {"stream", true},
                {"stream_options", {{"include_usage", true}}}};
  };
  std::map<int, std::string> expected;
  for (int round = 0; round < rounds; ++round) {
    std::vector<HttpClient> open;
    for (int i = 0; i < clients; ++i) {
      open.emplace_back(server.port());
      open.back().post("/v1/completions", request(i).dump());
    }
    for (int i = 0; i < clients; ++i) {
      const HttpAnswer answer = open[i].answer(60);
      ASSERT_TRUE(answer.whole) << answer.status << answer.body;
      const std::vector<Json> events = events_of(answer.body);
      ASSERT_GE(events.size(), 3U) << answer.body;
      ASSERT_EQ(events[events.size() - 2]["usage"]["completion_tokens"], 8 + i % 23);
      ASSERT_EQ(events[events.size() - 3]["choices"][0]["finish_reason"], "length");
      std::string text;
      for (const Json& event : events)
        if (event.is_object() && !event["choices"].empty()) text += event["choices"][0]["text"].get<std::string>();
      if (!expected.contains(i)) expected[i] = text;
      ASSERT_EQ(text, expected[i]) << "neighbours changed an answer";
    }
  }
}

class Layouts : public ::testing::TestWithParam<const char*> {};

TEST_P(Layouts, many_streams_at_once_lose_nothing) {
  TestServer server({.layout = GetParam()});
  run_clients(server, 64, 1);
  const std::int64_t before = used_memory_bytes();
  run_clients(server, 64, 2);
  EXPECT_LT(used_memory_bytes() - before, 32 << 20) << "memory stays flat";
  EXPECT_TRUE(server.wait_idle(5));
}

INSTANTIATE_TEST_SUITE_P(All, Layouts, ::testing::Values("local", "1A1F", "2A1F", "1A2F", "2A2F"),
                         [](const auto& info) { return std::string(info.param); });

TEST(Serve, waits_no_longer_than_it_may_and_cuts_off_what_is_left) {
  TestServerConfig config{.step_ms = 20};
  config.settings.drain_ms_max = 100;
  HttpClient client = [&] {
    TestServer server(std::move(config));
    HttpClient open(server.port());
    open.post("/v1/completions",
              Json{{"prompt", "Hi"}, {"max_tokens", 500}, {"ignore_eos", true}, {"stream", true}}.dump());
    EXPECT_TRUE(open.wait_for("data: "));
    server->drain();
    EXPECT_FALSE(server->wait_drained());
    return open;
  }();
  EXPECT_TRUE(client.wait_closed(3));
}

TEST(Serve, many_idle_connections_cost_the_others_nothing) {
  TestServer server;
  std::vector<HttpClient> idle;
  for (int i = 0; i < 1000; ++i) idle.emplace_back(server.port());
  EXPECT_TRUE(eventually([&] { return server->service().metrics.connections == 1000; }));
  EXPECT_EQ(server.complete({{"max_tokens", 4}}).status, 200);
  idle.clear();
  EXPECT_TRUE(eventually([&] { return server->service().metrics.connections == 0; }));
}

TEST(Serve, a_thousand_waiting_streams_and_storms_of_reconnects) {
  TestServerConfig config{.step_ms = 20, .queue_max = 2000};
  config.settings.streams_max = 1000;
  TestServer server(std::move(config));
  const std::string request =
      Json{{"prompt", "Hi"}, {"max_tokens", 500}, {"ignore_eos", true}, {"stream", true}}.dump();
  const std::int64_t before = used_memory_bytes();
  for (int storm = 0; storm < 3; ++storm) {
    std::vector<HttpClient> clients;
    for (int i = 0; i < 1000; ++i) {
      clients.emplace_back(server.port());
      clients.back().post("/v1/completions", request);
    }
    ASSERT_TRUE(eventually([&] { return server.engine_requests() == 1000; }));
    EXPECT_EQ(server.complete({{"max_tokens", 1}}).status, 429) << "the limit holds";
    EXPECT_EQ(get(server.port(), "/health").status, 200) << "and who asks for little is answered";
    for (HttpClient& client : clients) client.reset();
    EXPECT_TRUE(server.wait_idle()) << "all of them left, and so did their work";
  }
  EXPECT_TRUE(eventually([&] { return server->service().metrics.connections == 0; }));
  EXPECT_EQ(server.complete({{"max_tokens", 4}}).status, 200);
  EXPECT_LT(used_memory_bytes() - before, 64 << 20);
}

TEST(Serve, first_tokens_of_many_come_while_others_are_being_answered) {
  TestServer server({.step_ms = 2});
  HttpClient first(server.port());
  first.post("/v1/completions",
             Json{{"prompt", "Hi"}, {"max_tokens", 400}, {"ignore_eos", true}, {"stream", true}}.dump());
  ASSERT_TRUE(first.wait_for("data: "));
  for (int i = 0; i < 8; ++i)
    EXPECT_EQ(server.complete({{"prompt", std::string(400, static_cast<char>('a' + i))}, {"max_tokens", 2}}).status,
              200);
  EXPECT_EQ(server.engine_requests(), 1) << "the long answer is still under way";
}

}  // namespace
}  // namespace tandem
