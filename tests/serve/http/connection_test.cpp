// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Clients that are slow, rude or gone, against a whole server: each gets the right answer and disturbs nobody.
#include <gmock/gmock.h>
#include <unistd.h>

#include "base/format.h"
#include "serve/http/message.h"
#include "serve/http/server.h"
#include "tests/base/error_of.h"
#include "tests/serve/test_server.h"

namespace tandem {
namespace {

using ::testing::HasSubstr;

constexpr std::string_view kGet = "GET /health HTTP/1.1\r\nHost: a\r\n\r\n";

TestServerConfig quick() {
  TestServerConfig config;
  HttpLimits& limits = config.settings.http.limits;
  limits.head_ms_max = 150;
  limits.body_ms_max = 150;
  limits.idle_ms_max = 300;
  limits.write_ms_max = 300;
  limits.header_bytes_max = 4096;
  limits.body_bytes_max = 4096;
  return config;
}

class Connections : public ::testing::Test {
 protected:
  // Everybody else is served as before.
  void expect_well() { EXPECT_EQ(server_.complete({{"max_tokens", 2}}).status, 200); }
  TestServer server_{quick()};
};

TEST_F(Connections, one_connection_takes_request_after_request) {
  HttpClient client(server_.port());
  for (int i = 0; i < 3; ++i) {
    client.send(kGet);
    const HttpAnswer answer = client.answer();
    EXPECT_EQ(answer.status, 200);
    EXPECT_EQ(answer.headers.at("connection"), "keep-alive");
    client.post("/v1/completions", Json{{"prompt", "Hi"}, {"max_tokens", 2}, {"stream", true}}.dump());
    EXPECT_TRUE(client.answer().whole);
  }
  client.send("GET /health HTTP/1.1\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(client.answer().status, 200);
  EXPECT_TRUE(client.wait_closed(2));
}

TEST_F(Connections, requests_sent_ahead_are_answered_in_order) {
  HttpClient client(server_.port());
  const std::string body = Json{{"prompt", "Hi"}, {"max_tokens", 20}, {"stream", true}}.dump();
  client.send(format("POST /v1/completions HTTP/1.1\r\nContent-Length: {}\r\n\r\n{}{}", body.size(), body, kGet));
  EXPECT_TRUE(client.wait_for("[DONE]"));
  EXPECT_TRUE(client.wait_for(R"({"status":"ok"})"));
}

TEST_F(Connections, slow_headers_and_bodies_are_told_and_left) {
  HttpClient head(server_.port()), body(server_.port()), drip(server_.port());
  head.send("GET /health HT");
  body.send("POST /v1/completions HTTP/1.1\r\nContent-Length: 10\r\n\r\n{");
  HttpAnswer answer = head.answer(3);
  EXPECT_EQ(answer.status, 408);
  EXPECT_THAT(answer.error()["message"], HasSubstr("--head-ms-max"));
  answer = body.answer(3);
  EXPECT_EQ(answer.status, 408);
  EXPECT_THAT(answer.error()["message"], HasSubstr("--body-ms-max"));
  for (int i = 0; i < 40 && drip.send("G"); ++i) usleep(20'000);  // always a byte, never a request
  EXPECT_EQ(drip.answer(3).status, 408);
  expect_well();
}

TEST_F(Connections, idle_and_half_open_ones_are_closed) {
  HttpClient silent(server_.port()), used(server_.port()), half(server_.port());
  used.send(kGet);
  EXPECT_EQ(used.answer().status, 200);
  half.half_close();
  EXPECT_TRUE(half.wait_closed(3));
  EXPECT_TRUE(silent.wait_closed(3));
  EXPECT_TRUE(used.wait_closed(3));
  expect_well();
}

TEST_F(Connections, long_bodies_are_refused_before_they_come) {
  HttpClient announced(server_.port()), chunked(server_.port());
  announced.send("POST /v1/completions HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\n");
  const HttpAnswer answer = announced.answer(3);
  EXPECT_EQ(answer.status, 413);
  EXPECT_EQ(answer.headers.at("connection"), "close");
  EXPECT_THAT(answer.error()["message"], HasSubstr("--body-bytes-max"));
  chunked.send("POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
  const std::string chunk = "1000\r\n" + std::string(4096, ' ') + "\r\n";
  for (int i = 0; i < 100 && chunked.send(chunk); ++i) {
  }
  EXPECT_EQ(chunked.answer(3).status, 413);
  expect_well();
}

TEST_F(Connections, bad_frames_and_floods_of_headers) {
  for (const char* text : {"hello\r\n\r\n", "\x16\x03\x01\x02\r\n\r\n",
                           "POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"}) {
    HttpClient client(server_.port());
    client.send(text);
    const HttpAnswer answer = client.answer(3);
    EXPECT_EQ(answer.status, 400) << text;
    EXPECT_EQ(answer.error()["type"], "invalid_request_error");
  }
  std::string flood = "GET /health HTTP/1.1\r\n";
  for (int i = 0; i < 100'000; ++i) flood += format("X-{}: 1\r\n", i);
  HttpClient client(server_.port());
  client.send(flood);
  EXPECT_EQ(client.answer(3).status, 431);
  expect_well();
}

TEST_F(Connections, a_client_that_never_reads_is_left) {
  TestServerConfig config = quick();
  config.settings.limits.choices_max = 64;
  config.settings.limits.top_logprobs_max = 20;
  TestServer server(std::move(config));
  HttpClient client(server.port());
  client.shrink_receive_buffer();
  // About 64 × 500 × 2 kB.
  client.post("/v1/chat/completions", Json{{"messages", {{{"role", "user"}, {"content", "a"}}}},
                                           {"n", 64},
                                           {"logprobs", true},
                                           {"top_logprobs", 20},
                                           {"ignore_eos", true},
                                           {"stream", true}}
                                          .dump());
  EXPECT_TRUE(eventually([&] { return server->service().metrics.clients_gone == 1; }, 90));  // 64 answers until then
  EXPECT_TRUE(server.wait_idle(3));
}

TEST_F(Connections, storms_of_clients_that_leave_at_once) {
  for (int i = 0; i < 300; ++i) {
    HttpClient client(server_.port());
    if (i % 3 == 0) client.send("POST /v1/completions HTTP/1.1\r\nContent-Le");
    if (i % 3 == 1) client.post("/v1/completions", R"({"prompt":"Hi","max_tokens":400})");
    i % 2 == 0 ? client.reset() : client.close();
  }
  EXPECT_TRUE(server_.wait_idle(5));
  EXPECT_TRUE(eventually([&] { return server_->service().metrics.connections == 0; }, 3));
  expect_well();
}

TEST_F(Connections, the_expected_word_before_a_body) {
  HttpClient client(server_.port());
  client.send("POST /tokenize HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 16\r\n\r\n");
  EXPECT_TRUE(client.wait_for("HTTP/1.1 100 Continue\r\n\r\n", 3));
  client.send(R"({"prompt":"abc"})");
  EXPECT_EQ(client.answer(3).status, 200);
}

TEST_F(Connections, old_clients_get_no_chunks) {
  HttpClient client(server_.port());
  const std::string body = Json{{"prompt", "Hi"}, {"max_tokens", 20}, {"stream", true}}.dump();
  client.send(format("POST /v1/completions HTTP/1.0\r\nContent-Length: {}\r\n\r\n{}", body.size(), body));
  const HttpAnswer answer = client.answer(3);
  EXPECT_FALSE(answer.headers.contains("transfer-encoding"));
  EXPECT_EQ(events_of(answer.body).back(), "[DONE]");
}

TEST(ConnectionsMax, further_clients_are_told) {
  TestServerConfig config;
  config.settings.http.limits.connections_max = 2;
  TestServer server(std::move(config));
  HttpClient first(server.port()), second(server.port());
  first.send(kGet);
  second.send(kGet);
  EXPECT_EQ(first.answer().status, 200);
  EXPECT_EQ(second.answer().status, 200);
  HttpClient third(server.port());
  const HttpAnswer answer = third.answer(3);
  EXPECT_EQ(answer.status, 503);
  EXPECT_THAT(answer.error()["message"], HasSubstr("--connections-max"));
  first.close();
  EXPECT_TRUE(eventually([&] { return get(server.port(), "/health").status == 200; }, 3));
}

TEST(Listening, says_what_is_wrong_with_an_address) {
  TestServer server;
  HttpConfig config;
  config.port = server.port();
  class Nobody final : public HttpHandler {
    std::unique_ptr<Reply> on_head(HttpRequest&) override { return nullptr; }
    std::unique_ptr<Reply> on_request(HttpRequest&, const Wake&) override { return nullptr; }
    std::unique_ptr<Reply> on_error(int, std::string_view) override { return nullptr; }
    void on_connection(int) override {}
    void on_end(const HttpRequest&, const Reply*, const ExchangeEnd&) override {}
  } nobody;
  EXPECT_THAT(error_of([&] { HttpServer::start(config, nobody); }).message(), HasSubstr("Address already in use"));
  config.host = "no-such-host";
  EXPECT_THAT(error_of([&] { HttpServer::start(config, nobody); }).message(), HasSubstr("must be an IP address"));
  EXPECT_TRUE(is_loopback("localhost") && is_loopback("127.0.0.9") && is_loopback("::1"));
  EXPECT_FALSE(is_loopback("0.0.0.0") || is_loopback("::") || is_loopback("192.168.0.1"));
}

}  // namespace
}  // namespace tandem
