// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The generator against our own server in this process, and against made-up servers that misbehave.
#include "traffic/generator.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <netinet/in.h>
#include <unistd.h>

#include "tests/serve/test_server.h"

namespace tandem {
namespace {

using ::testing::HasSubstr;

Endpoints at(int port) {
  return look_up(parse_server_address("http://127.0.0.1:" + std::to_string(port) + "/v1"));
}

TEST(Generator, notes_every_answer_of_our_own_server) {
  TestServer server;
  for (const bool chat : {true, false}) {
    const std::vector<LoadRequest> workload =
        make_workload({.requests = 24, .input = {4, 20}, .output = {2, 12}, .chat = chat});
    const RealClock clock;
    std::size_t told = 0;
    const std::vector<LoadRecord> records = run_workload(
        workload, at(server.port()), {.path = chat ? "/chat/completions" : "/completions", .concurrency = 6}, clock,
        [&](std::size_t ended) { told = ended; });
    ASSERT_EQ(records.size(), workload.size());
    EXPECT_EQ(told, workload.size());
    for (std::size_t i = 0; i < records.size(); ++i) {
      const LoadRecord& record = records[i];
      EXPECT_TRUE(record.ok()) << record.error;
      EXPECT_EQ(record.output_tokens, Json::parse(workload[i].body)["max_tokens"]);
      EXPECT_GT(record.input_tokens, 0);
      EXPECT_EQ(record.finish_reason, "length");
      EXPECT_LE(record.due, record.first);
      EXPECT_LE(record.first, record.last);
      EXPECT_LE(record.last, record.end);
    }
  }
}

TEST(Generator, keeps_to_concurrency_and_to_arrivals) {
  TestServerConfig config;
  config.settings.streams_max = 6;  // an answer's place is free again just after its client has read all of it
  TestServer server(std::move(config));
  const RealClock clock;
  for (const double rate : {0.0, 200.0}) {
    const std::vector<LoadRequest> workload =
        make_workload({.requests = 30, .rate = rate, .input = {4, 4}, .output = {4, 4}, .chat = false});
    const std::vector<LoadRecord> records =
        run_workload(workload, at(server.port()), {.path = "/completions", .concurrency = 3}, clock);
    for (std::size_t i = 0; i < records.size(); ++i) {
      EXPECT_TRUE(records[i].ok()) << records[i].error;
      if (rate > 0) {
        EXPECT_EQ(records[i].due, workload[i].arrival) << "waiting for a place counts";
      }
    }
  }
}

TEST(Generator, what_goes_wrong_is_in_the_record) {
  TestServer server;
  const RealClock clock;
  std::vector<LoadRequest> workload = make_workload({.requests = 3, .input = {4, 4}, .output = {4, 4}, .chat = false});
  workload[1].body = "{";
  std::vector<LoadRecord> records =
      run_workload(workload, at(server.port()), {.path = "/completions", .concurrency = 1}, clock);
  EXPECT_TRUE(records[0].ok() && records[2].ok());
  EXPECT_THAT(records[1].error, HasSubstr("status 400"));
  records = run_workload(workload, at(1), {.path = "/completions"}, clock);
  for (const LoadRecord& record : records) EXPECT_THAT(record.error, HasSubstr("cannot connect"));
}

// A server that reads one request and answers with these bytes.
class MadeUpServer {
 public:
  explicit MadeUpServer(std::string answer) : answer_(std::move(answer)), fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{.sin_family = AF_INET, .sin_port = 0, .sin_addr = {htonl(INADDR_LOOPBACK)}, .sin_zero = {}};
    socklen_t size = sizeof address;
    EXPECT_EQ(::bind(fd_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(::listen(fd_, 1), 0);
    EXPECT_EQ(::getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size), 0);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] {
      const int client = ::accept(fd_, nullptr, nullptr);
      char buffer[65536];
      EXPECT_GT(::recv(client, buffer, sizeof buffer, 0), 0);
      EXPECT_EQ(::send(client, answer_.data(), answer_.size(), MSG_NOSIGNAL), static_cast<ssize_t>(answer_.size()));
      ::shutdown(client, SHUT_WR);
      while (::recv(client, buffer, sizeof buffer, 0) > 0) {
      }
      ::close(client);
    });
  }
  ~MadeUpServer() {
    thread_.join();
    ::close(fd_);
  }
  int port() const { return port_; }

 private:
  const std::string answer_;
  const int fd_;
  int port_ = 0;
  std::thread thread_;
};

LoadRecord record_of(const std::string& events) {
  MadeUpServer server("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + events);
  const RealClock clock;
  return run_workload({{.body = "{}"}}, at(server.port()), {.path = "/chat/completions"}, clock).front();
}

TEST(Generator, understands_the_streams_of_other_servers) {
  // As llama.cpp's server sends them: content null in the first chunk, the usage in one of its own beside timings.
  const LoadRecord one = record_of(
      R"(data: {"choices":[{"finish_reason":null,"index":0,"delta":{"role":"assistant","content":null}}],"object":"chat.completion.chunk"})"
      "\n\n"
      R"(data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":"Hel"}}],"object":"chat.completion.chunk"})"
      "\n\n"
      R"(data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":"lo"}}]})"
      "\n\n"
      R"(data: {"choices":[{"finish_reason":"stop","index":0,"delta":{}}]})"
      "\n\n"
      R"(data: {"choices":[],"usage":{"completion_tokens":3,"prompt_tokens":9,"total_tokens":12},"timings":{"prompt_n":9}})"
      "\n\ndata: [DONE]\n\n");
  EXPECT_TRUE(one.ok()) << one.error;
  EXPECT_EQ(one.output_tokens, 3);
  EXPECT_EQ(one.input_tokens, 9);
  EXPECT_EQ(one.gaps.size(), 1U);
  EXPECT_EQ(one.finish_reason, "stop");
  // Without usage pieces are counted; comments and reasoning may come, too.
  const LoadRecord two = record_of(
      ": ping\r\n\r\n"
      R"(data: {"choices":[{"delta":{"reasoning_content":"hm"}}]})"
      "\r\n\r\n"
      R"(data: {"choices":[{"delta":{"content":"a"},"finish_reason":"length"}],"usage":null})"
      "\r\n\r\ndata: [DONE]\r\n\r\n");
  EXPECT_TRUE(two.ok()) << two.error;
  EXPECT_EQ(two.output_tokens, 2);
  EXPECT_EQ(two.finish_reason, "length");
}

TEST(Generator, streams_that_break_off_or_tell_errors_have_failed) {
  const auto error = [](const std::string& events) { return record_of(events).error; };
  EXPECT_THAT(error("data: {\"choices\":[]}\n\n"), HasSubstr("without data: [DONE]"));
  EXPECT_THAT(error("data: {\"error\":{\"message\":\"out of luck\"}}\n\n"), HasSubstr("out of luck"));
  EXPECT_THAT(error("data: {\n\n"), HasSubstr("event"));
  EXPECT_THAT(error("data: [1]\n\n"), HasSubstr("no object"));
  for (const char* odd : {R"({"choices":7})", R"({"choices":[7]})", R"({"choices":[{"delta":7,"text":7}]})",
                          R"({"usage":7})", R"({"usage":{"completion_tokens":"x"}})"})
    EXPECT_EQ(error("data: " + std::string(odd) + "\n\ndata: [DONE]\n\n"), "") << odd;
}

}  // namespace
}  // namespace tandem
