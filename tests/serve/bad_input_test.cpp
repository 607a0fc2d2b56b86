// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What a hostile or mistaken client may send, over a socket, while another client is being answered: each gets an error
// of OpenAI's form with the right status that tells nothing about the machine, and the other's answer stays what it is.
// Clients that are slow or gone are in http/connection_test.
#include <gmock/gmock.h>

#include <limits>

#include "base/format.h"
#include "serve/openai/fields.h"
#include "tests/serve/test_server.h"

namespace tandem {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr const char* kPostRoutes[] = {"/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize"};

Json witness_request() {
  return {{"prompt", "Once"}, {"max_tokens", 480}, {"temperature", 0}, {"ignore_eos", true}, {"stream", true}};
}

std::string text_of(const HttpAnswer& answer) {
  std::string text;
  for (const Json& event : events_of(answer.body))
    if (event.is_object() && !event["choices"].empty()) text += event["choices"][0]["text"].get<std::string>();
  return text;
}

// A server that is slowly answering somebody else, who must not notice anything.
class BadInput : public ::testing::Test {
 protected:
  void SetUp() override {
    witness_.post("/v1/completions", witness_request().dump());
    ASSERT_TRUE(witness_.wait_for("data: "));
  }
  void TearDown() override {
    const HttpAnswer seen = witness_.answer(0.1);
    EXPECT_EQ(seen.status, 200);
    const std::string text = text_of(seen);
    EXPECT_FALSE(text.empty());
    TestServer alone;
    EXPECT_TRUE(text_of(post(alone.port(), "/v1/completions", witness_request())).starts_with(text));
    witness_.close();
    EXPECT_TRUE(server_.wait_idle());
  }

  void expect_refused(std::string_view route, std::string_view body, int status = 400, std::string_view param = {}) {
    SCOPED_TRACE(format("{} {}", route, body.substr(0, 120)));
    const HttpAnswer answer = post_text(server_.port(), route, body);
    EXPECT_EQ(answer.status, status) << answer.body;
    EXPECT_EQ(answer.headers.at("content-type"), "application/json");
    const Json error = answer.error();
    ASSERT_TRUE(error.is_object()) << answer.body;
    for (const char* field : {"message", "type", "param", "code"}) EXPECT_TRUE(error.contains(field)) << answer.body;
    if (!param.empty()) {
      EXPECT_EQ(error["param"], param) << answer.body;
    }
    EXPECT_LT(answer.body.size(), 1000U) << "an error does not send back what it was sent";
    for (const char* secret : {"goldens", "/home", "/usr", "/src", ".cpp", ".rs", "0x", "nlohmann", "boost", "std::"})
      EXPECT_THAT(answer.body, Not(HasSubstr(secret)));
  }
  static Json with(Endpoint endpoint, std::string_view field, Json value) {
    Json body = endpoint == Endpoint::kChat ? Json{{"messages", {{{"role", "user"}, {"content", "Hi"}}}}}
                                            : Json{{"prompt", "Hi"}};
    body["max_tokens"] = 1;
    body[std::string(field)] = std::move(value);
    return body;
  }

  TestServer server_{{.step_ms = 20}};
  HttpClient witness_{server_.port()};
};

TEST_F(BadInput, bodies_that_are_no_json_object) {
  const std::string deep = std::string(10'000, '[') + std::string(10'000, ']');
  std::string deep_objects;
  for (int i = 0; i < 10'000; ++i) deep_objects += R"({"a":)";
  for (const char* route : kPostRoutes)
    for (const std::string& body : {std::string(),
                                    std::string(" \r\n"),
                                    std::string("{"),
                                    std::string("[]"),
                                    std::string("null"),
                                    std::string("7"),
                                    std::string("\"a\""),
                                    std::string("NaN"),
                                    deep,
                                    deep_objects,
                                    "{\"prompt\":" + deep + "}",
                                    std::string("{\"prompt\":\"\xff\xfe\"}"),
                                    std::string("{\"prompt\":\"\xC0\x80\"}"),
                                    std::string("{\"prompt\":\"\xed\xa0\x80\"}"),
                                    std::string(R"({"prompt":"\ud800"})"),
                                    std::string(R"({"prompt":"\udc00\ud800"})"),
                                    std::string(R"({"prompt":"a","prompt":"b"})"),
                                    std::string(R"({"a":{"b":1,"b":1}})"),
                                    std::string("{\"prompt\":\"a\"} x"),
                                    std::string("{\"prompt\":\"a\0\"}", 15),
                                    std::string("\0", 1),
                                    std::string(100'000, '{')})
      expect_refused(route, body);
}

TEST_F(BadInput, every_field_of_another_type) {
  for (const Endpoint endpoint : {Endpoint::kChat, Endpoint::kCompletions})
    for (const FieldRow& row : field_rows()) {
      if ((row.endpoints & static_cast<unsigned>(endpoint)) == 0 || row.use == FieldUse::kNoEffect) continue;
      const char* route = endpoint == Endpoint::kChat ? kPostRoutes[0] : kPostRoutes[1];
      const Json value = Json::parse(R"([{"a":[true]}])");
      expect_refused(route, with(endpoint, row.name, value).dump(), 400);
    }
}

TEST_F(BadInput, every_number_outside_its_range) {
  for (const Endpoint endpoint : {Endpoint::kChat, Endpoint::kCompletions})
    for (const FieldRow& row : field_rows()) {
      const bool number = row.kind == FieldKind::kInteger || row.kind == FieldKind::kNumber;
      if ((row.endpoints & static_cast<unsigned>(endpoint)) == 0 || !number) continue;
      const char* route = endpoint == Endpoint::kChat ? kPostRoutes[0] : kPostRoutes[1];
      std::vector<Json> bad = {std::numeric_limits<std::uint64_t>::max()};
      if (row.name != "seed") {
        const auto step = [&](double at, int by) {
          return row.kind == FieldKind::kInteger ? Json(static_cast<std::int64_t>(at) + by) : Json(at + by);
        };
        bad.insert(bad.end(), {INT64_MIN, INT64_MAX, step(row.min, -1), step(row.max, +1)});
      }
      for (const Json& value : bad) expect_refused(route, with(endpoint, row.name, value).dump(), 400, row.name);
      for (const char* text : {"NaN", "-Infinity", "1e999"}) {
        std::string body = with(endpoint, row.name, "@").dump();
        expect_refused(route, body.replace(body.find("\"@\""), 3, text));
      }
    }
}

TEST_F(BadInput, prompts_that_cannot_be) {
  const auto ids = [](std::size_t count, int id = 65) { return Json(std::vector<int>(count, id)); };
  const std::string_view route = "/v1/completions";
  expect_refused(route, R"({"prompt":[]})", 400, "prompt");
  expect_refused(route, R"({"prompt":[[]]})", 400, "prompt");
  expect_refused(route, Json{{"prompt", ids(512)}}.dump(), 400, "prompt");
  expect_refused(route, Json{{"prompt", ids(511)}, {"max_tokens", 2}}.dump(), 400, "max_tokens");
  EXPECT_EQ(server_.complete({{"prompt", ids(511)}, {"max_tokens", 1}}).status, 200) << "as long as the context";
  for (const char* id : {"512", "-1", "2147483648", "9223372036854775807", "18446744073709551615", "1.5"}) {
    expect_refused(route, format(R"({{"prompt":[{}]}})", id), 400, "prompt");
    expect_refused("/detokenize", format(R"({{"tokens":[{}]}})", id), 400, "tokens");
    if (std::string_view(id) != "1.5") {
      expect_refused(route, format(R"({{"prompt":"a","logit_bias":{{"{}":1}}}})", id), 400, "logit_bias");
    }
  }
  expect_refused("/v1/chat/completions", R"({"messages":[]})", 400, "messages");
  expect_refused("/v1/chat/completions",
                 Json{{"messages", {{{"role", "user"}, {"content", std::string(4000, 'x')}}}}}.dump(), 400, "messages");
}

TEST_F(BadInput, an_empty_text_is_the_token_that_begins_texts) {
  const HttpAnswer answer = server_.complete({{"prompt", ""}, {"max_tokens", 1}});
  ASSERT_EQ(answer.status, 200) << answer.body;
  EXPECT_EQ(answer.json()["usage"]["prompt_tokens"], 1);
}

TEST_F(BadInput, an_unknown_model) {
  for (const char* name : {"gpt-4", "", "../llama", "llama\\u0000"}) {
    const std::string model = format(R"("model":"{}")", name);
    expect_refused("/v1/chat/completions", format(R"({{"messages":[{{"role":"user","content":"a"}}],{}}})", model), 404,
                   "model");
    expect_refused("/v1/completions", format(R"({{"prompt":"a",{}}})", model), 404, "model");
    expect_refused("/tokenize", format(R"({{"prompt":"a",{}}})", model), 404, "model");
    expect_refused("/detokenize", format(R"({{"tokens":[1],{}}})", model), 404, "model");
  }
}

TEST(BadTemplate, one_that_loops_or_grows_is_refused_and_others_are_served) {
  for (const char* source : {"{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
                             "{% for a in range(90000) %}{{ messages[0].content * 1000 }}{% endfor %}",
                             "{{ raise_exception('no such role') }}"}) {
    TestServer server({.chat_template = source});
    const HttpAnswer answer = server.chat({{"max_tokens", 1}});
    EXPECT_EQ(answer.status, 400) << source << answer.body;
    EXPECT_THAT(answer.error()["message"], HasSubstr("chat template"));
    EXPECT_EQ(server.complete({{"max_tokens", 1}}).status, 200);
  }
}

}  // namespace
}  // namespace tandem
