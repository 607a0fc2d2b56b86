// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "serve/routes.h"

#include <gmock/gmock.h>

#include "tests/serve/test_server.h"

namespace tandem {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr const char* kKey = "first-key-0123456789";
const std::string kBearer = std::string("Authorization: Bearer ") + kKey + "\r\n";

TEST(Routes, answer_what_they_are_for) {
  TestServer server;
  const Json models = get(server.port(), "/v1/models").json();
  EXPECT_EQ(models["data"][0]["id"], "llama");
  EXPECT_EQ(models["data"][0]["max_model_len"], 512);
  EXPECT_EQ(get(server.port(), "/v1/models/llama").json()["id"], "llama");
  EXPECT_EQ(get(server.port(), "/v1/models/other").error()["code"], "model_not_found");
  EXPECT_EQ(get(server.port(), "/health").status, 200);
  EXPECT_EQ(get(server.port(), "/health?verbose=1").status, 200);
  EXPECT_EQ(get(server.port(), "/ready").status, 200);
}

TEST(Routes, every_one_is_of_one_method) {
  TestServer server;
  for (const Route& route : route_rows()) {
    const HttpAnswer answer =
        route.method == "GET" ? post(server.port(), route.path, {}) : get(server.port(), route.path);
    EXPECT_EQ(answer.status, 405) << route.path;
    EXPECT_THAT(answer.error()["message"], HasSubstr(std::string(route.method)));
  }
  for (const char* path : {"/", "/v1", "/v1/chat/completions/", "/v1/models/", "/../etc/passwd", "/%2e%2e", "*"})
    EXPECT_EQ(get(server.port(), path).status, 404) << path;
}

TEST(Routes, text_to_tokens_and_back) {
  TestServer server;
  const Json tokens =
      post(server.port(), "/tokenize", {{"prompt", "Hello <|eot_id|>"}, {"return_token_strs", true}}).json();
  EXPECT_EQ(tokens["tokens"], server.model().text_prompt("Hello <|eot_id|>")) << "what it spells stays text";
  EXPECT_EQ(tokens["count"], tokens["tokens"].size());
  EXPECT_EQ(tokens["token_strs"].size(), tokens["tokens"].size());
  const Json plain = post(server.port(), "/tokenize", {{"prompt", "Hello"}, {"add_special_tokens", false}}).json();
  EXPECT_EQ(post(server.port(), "/detokenize", {{"tokens", plain["tokens"]}}).json()["prompt"], "Hello");
  const OrderedJson messages = {{{"role", "user"}, {"content", "Hi"}}};
  EXPECT_EQ(post(server.port(), "/tokenize", {{"messages", {{{"role", "user"}, {"content", "Hi"}}}}}).json()["tokens"],
            server.model().chat_prompt(messages));
  for (const Json& body : {Json{{"tokens", {512}}}, Json{{"tokens", {-1}}}, Json{{"tokens", "a"}},
                           Json{{"tokens", {1.5}}}, Json::object()})
    EXPECT_EQ(post(server.port(), "/detokenize", body).status, 400) << body;
  for (const Json& body :
       {Json{{"prompt", 1}}, Json{{"prompt", "a"}, {"add_special_tokens", 1}}, Json::object(), Json{{"messages", 1}}})
    EXPECT_EQ(post(server.port(), "/tokenize", body).status, 400) << body;
  EXPECT_EQ(post(server.port(), "/tokenize", {{"prompt", "a"}, {"model", "b"}}).status, 404);
}

TEST(Routes, errors_have_openais_form_and_tell_no_secret) {
  TestServer server;
  for (const char* body :
       {"", "{", "{}", R"({"messages":[]})", R"({"messages":[{"role":"user","content":"a"}],"tools":[{}]})",
        R"({"messages":[{"role":"user","content":"a"}],"model":"/etc/passwd"})", R"({"prompt":"a","prompt":"b"})"}) {
    const HttpAnswer answer = post_text(server.port(), "/v1/chat/completions", body);
    EXPECT_GE(answer.status, 400);
    EXPECT_EQ(answer.headers.at("content-type"), "application/json");
    const Json error = answer.error();
    for (const char* field : {"message", "type", "param", "code"}) EXPECT_TRUE(error.contains(field)) << answer.body;
    for (const char* secret : {"goldens", "/home", "/work", ".cpp", "0x", "/etc"})
      EXPECT_THAT(answer.body, Not(HasSubstr(secret)));
  }
}

TEST(Routes, keys_guard_every_one_but_health) {
  TestServerConfig config;
  config.settings.api_keys = {kKey, "second-key-0123456789"};
  TestServer server(std::move(config));
  for (const Route& route : route_rows()) {
    for (const char* header :
         {"", "Authorization: Bearer \r\n", "Authorization: Bearer first-key-012345678\r\n",
          "Authorization: first-key-0123456789\r\n", "Authorization: Basic first-key-0123456789\r\n",
          "X-Api-Key: first-key-0123456789\r\n"}) {
      const HttpAnswer answer =
          route.method == "GET" ? get(server.port(), route.path, header) : post(server.port(), route.path, {}, header);
      EXPECT_EQ(answer.status, route.open ? 200 : 401) << route.path << " " << header;
      if (!route.open) {
        EXPECT_EQ(answer.error()["code"], "invalid_api_key");
      }
    }
    if (route.path.ends_with('*')) continue;
    const HttpAnswer answer = route.method == "GET" ? get(server.port(), route.path, kBearer)
                                                    : post(server.port(), route.path, Json::object(), kBearer);
    EXPECT_NE(answer.status, 401) << route.path;
  }
  EXPECT_EQ(get(server.port(), "/no/such/route").status, 401) << "nobody learns which routes there are";
  EXPECT_EQ(get(server.port(), "/v1/models", "Authorization: Bearer second-key-0123456789\r\n").status, 200);
}

TEST(Routes, a_key_is_asked_for_before_the_body_is_read) {
  TestServerConfig config;
  config.settings.api_keys = {kKey};
  TestServer server(std::move(config));
  HttpClient client(server.port());
  client.send("POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n");
  EXPECT_EQ(client.answer(3).status, 401);
}

TEST(Routes, keys_do_not_share_prefixes) {
  TestServerConfig config;
  config.settings.api_keys = {kKey, "second-key-0123456789"};
  TestServer server(std::move(config));
  const auto cached = [&](const std::string& headers) {
    return server.complete({{"prompt", std::string(300, 'x')}, {"max_tokens", 1}}, headers)
        .json()["usage"]["prompt_tokens_details"]["cached_tokens"]
        .get<int>();
  };
  EXPECT_EQ(cached(kBearer), 0);
  EXPECT_GE(cached(kBearer), 64);
  EXPECT_EQ(cached("Authorization: Bearer second-key-0123456789\r\n"), 0);
}

TEST(Routes, draining_refuses_work_and_ends_what_runs) {
  TestServer server({.step_ms = 5});
  HttpClient client(server.port());
  client.post("/v1/completions",
              Json{{"prompt", "Hi"}, {"max_tokens", 60}, {"ignore_eos", true}, {"stream", true}}.dump());
  ASSERT_TRUE(client.wait_for("data: "));
  server->drain();
  EXPECT_EQ(get(server.port(), "/ready").status, 503);
  EXPECT_EQ(get(server.port(), "/health").status, 200);
  const HttpAnswer refused = server.complete({});
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.headers.at("retry-after"), "1");
  EXPECT_TRUE(server->wait_drained());
  const HttpAnswer answer = client.answer();
  EXPECT_TRUE(answer.whole);
  EXPECT_EQ(events_of(answer.body).back(), "[DONE]");
}

}  // namespace
}  // namespace tandem
