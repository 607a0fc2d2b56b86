// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Every limit of what clients send is reached once, over a socket, and answered with the status that its line in the
// table of settings promises. A new limit without a case here fails.
#include <gmock/gmock.h>

#include <chrono>
#include <functional>

#include "base/format.h"
#include "serve/settings.h"
#include "tests/image/png_header.h"
#include "tests/image/recording.h"
#include "tests/serve/picture_part.h"
#include "tests/serve/remote/picture_host.h"
#include "tests/serve/test_server.h"

namespace tandem {
namespace {

using ::testing::HasSubstr;

struct Case {
  std::int64_t value;                            // what the limit is set to
  std::function<HttpAnswer(TestServer&)> reach;  // goes beyond it
  std::string model = TestServerConfig().model;
};

std::string text_of(std::size_t bytes) {
  std::string text;
  for (std::size_t i = 0; text.size() < bytes; ++i) text += format("{} ", i * 7919 % 1000);
  return text;
}

HttpAnswer send(TestServer& server, std::string_view bytes) {
  HttpClient client(server.port());
  client.send(bytes);
  return client.answer(10);
}

std::function<HttpAnswer(TestServer&)> completion(Json fields) {
  return [fields = std::move(fields)](TestServer& server) { return server.complete(fields); };
}

Json tool(const char* name, std::size_t bytes) {
  return {{"type", "function"}, {"function", {{"name", name}, {"description", std::string(bytes, 'a')}}}};
}

// Some milliseconds' work for whoever compiles it.
std::string many_rules() {
  std::string grammar = "start: r0";
  for (int i = 1; i < 800; ++i) grammar += format(" | r{}", i);
  for (int i = 0; i < 800; ++i)
    grammar += format("\nr{}: /[a-z]*{}|{}+/ %json {{\"type\": \"object\"}}", i, i, i * 7919);
  return grammar;
}

// A client that has been given an answer, and then says nothing.
HttpAnswer fall_silent(TestServer& server) {
  HttpClient client(server.port());
  client.send("GET /health HTTP/1.1\r\n\r\n");
  EXPECT_EQ(client.answer().status, 200);
  EXPECT_TRUE(client.wait_closed(10));
  return {};
}

// A client that asks for megabytes and reads none of them.
HttpAnswer never_read(TestServer& server) {
  HttpClient client(server.port());
  client.shrink_receive_buffer();
  client.post("/tokenize", Json{{"prompt", text_of(1 << 20)}, {"return_token_strs", true}}.dump());
  EXPECT_TRUE(eventually([&] { return server->service().metrics.clients_gone == 1; }));
  return {};
}

// A user who shows pictures, as files, to a model that sees them.
Case shown(std::int64_t value, std::vector<std::string> files) {
  return {value,
          [files = std::move(files)](TestServer& server) {
            Json content = Json::array();
            for (const std::string& file : files) content.push_back(picture_part(file));
            return server.chat({{"max_tokens", 1}, {"messages", {{{"role", "user"}, {"content", content}}}}});
          },
          "tests/goldens/step3_vl"};
}

// Hosts that are allowed and no good: one never comes to the end of its answer, the name of the other is hard to find.
class BadHosts {
 public:
  std::vector<std::string> names() const { return {format("endless.example:{}", host_.port()), "lost.example"}; }
  RemoteSeams network() const {
    RemoteSeams seams = loopback_network();
    seams.look_up = [find = seams.look_up](const std::string& name) {
      if (name == "lost.example") std::this_thread::sleep_for(std::chrono::milliseconds(300));
      return find(name);
    };
    return seams;
  }
  Json picture_of(bool lost) const {
    const std::string url = lost ? "http://lost.example/" : format("http://endless.example:{}/", host_.port());
    return {{"messages", {{{"role", "user"}, {"content", Json::array({url_part(url)})}}}}};
  }
  std::size_t requests() const { return host_.requests().size(); }

 private:
  PictureHost host_{[](const std::string&, const PictureHost::Send& send) {
    send("HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 1000000\r\n\r\n");
    while (send("a")) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }};
};

const BadHosts& bad_hosts() {
  static const BadHosts hosts;
  return hosts;
}

Case remote(std::int64_t value, bool lost) {
  return {value, [lost](TestServer& server) { return server.chat(bad_hosts().picture_of(lost)); },
          "tests/goldens/step3_vl"};
}

HttpAnswer second_picture(TestServer& server) {
  const std::size_t before = bad_hosts().requests();
  HttpClient first(server.port());
  first.post("/v1/chat/completions", bad_hosts().picture_of(false).dump());
  EXPECT_TRUE(eventually([&] { return bad_hosts().requests() > before; }));
  const HttpAnswer second = server.chat(bad_hosts().picture_of(false));
  EXPECT_EQ(first.answer().status, 400) << "its time is over";
  return second;
}

HttpAnswer second_connection(TestServer& server) {
  HttpClient first(server.port());
  first.send("GET /health HTTP/1.1\r\n\r\n");
  EXPECT_EQ(first.answer().status, 200);
  return HttpClient(server.port()).answer(10);
}

std::map<std::string_view, Case> cases() {
  const Json message{{"role", "user"}, {"content", "a"}};
  const std::string png = read_test_file("tests/goldens/pictures/rgb.png");
  return {
      {"connections-max", {1, second_connection}},
      {"header-bytes-max",
       {1024,
        [](TestServer& s) { return send(s, "GET /health HTTP/1.1\r\nA: " + std::string(1025, 'a') + "\r\n\r\n"); }}},
      {"headers-max",
       {8,
        [](TestServer& s) {
          std::string head = "GET /health HTTP/1.1\r\n";
          for (int i = 0; i < 9; ++i) head += format("A{}: a\r\n", i);
          return send(s, head + "\r\n");
        }}},
      {"body-bytes-max", {1024, completion({{"prompt", std::string(1024, 'a')}})}},
      {"idle-ms-max", {300, fall_silent}},
      {"head-ms-max", {50, [](TestServer& s) { return send(s, "GET /health HT"); }}},
      {"body-ms-max",
       {50, [](TestServer& s) { return send(s, "POST /tokenize HTTP/1.1\r\nContent-Length: 9\r\n\r\n{"); }}},
      {"write-ms-max", {50, never_read}},
      {"json-depth-max", {4, completion({{"a", Json::parse("[[[[1]]]]")}})}},
      {"json-keys-max",
       {64,
        [](TestServer& s) {
          Json body;
          for (int i = 0; i < 65; ++i) body[format("k{}", i)] = 1;
          return s.complete(body);
        }}},
      {"json-values-max", {256, completion({{"prompt", std::vector<int>(256, 1)}})}},
      {"messages-max", {1, [=](TestServer& s) { return s.chat({{"messages", {message, message}}}); }}},
      {"tools-max",
       {1, [=](TestServer& s) { return s.chat({{"messages", {message}}, {"tools", {tool("a", 1), tool("b", 1)}}}); }}},
      {"tool-bytes-max",
       {256, [=](TestServer& s) { return s.chat({{"messages", {message}}, {"tools", {tool("a", 256)}}}); }}},
      {"grammar-bytes-max", {1024, completion({{"guided_regex", std::string(1025, 'a')}})}},
      {"grammar-depth-max", {4, completion({{"guided_regex", "(((((a)))))"}})}},
      {"grammar-ms-max", {1, completion({{"guided_grammar", many_rules()}})}},
      {"prompts-max", {1, completion({{"prompt", {"a", "b"}}})}},
      {"prompt-tokens-max", {4, completion({{"prompt", {1, 2, 3, 4, 5}}})}},
      {"choices-max", {2, completion({{"prompt", {"a", "b"}}, {"n", 2}})}},
      {"stop-max", {1, completion({{"stop", {"a", "b"}}})}},
      {"stop-bytes-max", {2, completion({{"stop", "abc"}})}},
      {"logit-bias-max", {1, completion({{"logit_bias", {{"1", 1}, {"2", 1}}}})}},
      {"top-logprobs-max", {2, completion({{"logprobs", 3}})}},
      {"salt-bytes-max", {16, completion({{"cache_salt", std::string(17, 's')}})}},
      {"pictures-max", shown(1, {png, png})},
      {"picture-bytes-max", shown(1024, {png + std::string(1024, 'a')})},
      {"picture-pixels-max", shown(1024, {png_header(64, 64)})},
      {"remote-images-at-once", {1, second_picture, "tests/goldens/step3_vl"}},
      {"remote-images-ms-max", remote(20, false)},
      {"remote-image-connect-ms-max", remote(10, true)},
      {"streams-max", {1, completion({{"n", 2}})}},
  };
}

// "… ; 431 beyond" promises 431, "closed beyond" an end without a word.
int promised_status(std::string_view doc) {
  if (doc.find("closed beyond") != std::string_view::npos) return 0;
  const std::size_t at = doc.find(" beyond");
  return at == std::string_view::npos || at < 3 ? -1 : std::stoi(std::string(doc.substr(at - 3, 3)));
}

TEST(Limits, each_is_reached_and_answered_as_its_table_says) {
  const auto all = cases();
  std::size_t limits = 0;
  for (const SettingRow& row : setting_rows()) {
    if (!row.limit) continue;
    SCOPED_TRACE(row.name);
    ++limits;
    const auto found = all.find(row.name);
    ASSERT_NE(found, all.end()) << "a limit without a case";
    TestServerConfig config;
    config.model = found->second.model;
    config.settings.limits.remote = {.hosts = bad_hosts().names(), .ms_max = 1000};
    config.remote = bad_hosts().network();
    *std::get<std::int64_t*>(row.place(config.settings)) = found->second.value;
    TestServer server(std::move(config));
    const HttpAnswer answer = found->second.reach(server);
    const int status = promised_status(row.doc);
    EXPECT_EQ(answer.status, status) << answer.body;
    if (status != 0) {
      EXPECT_EQ(answer.headers.at("content-type"), "application/json");
      EXPECT_TRUE(answer.error().is_object()) << answer.body;
    }
    EXPECT_TRUE(eventually([&] { return get(server.port(), "/health").status == 200; })) << "others are served";
    EXPECT_TRUE(server.wait_idle());
  }
  EXPECT_EQ(limits, all.size());
}

}  // namespace
}  // namespace tandem
