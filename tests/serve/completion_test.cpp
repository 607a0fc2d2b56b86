// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Answers over HTTP, as a client sees them: whole and streamed, with everything that can be asked of them.
#include "serve/completion.h"

#include <gmock/gmock.h>

#include "base/format.h"
#include "tests/serve/test_server.h"

namespace tandem {
namespace {

using ::testing::HasSubstr;

// The texts of all chunks of one choice, put together.
std::string streamed_text(const std::vector<Json>& events, int index = 0) {
  std::string text;
  for (const Json& event : events) {
    if (!event.is_object()) continue;
    for (const Json& choice : event["choices"]) {
      if (choice["index"] != index) continue;
      text += choice.contains("delta") ? choice["delta"].value("content", "") : choice.value("text", "");
    }
  }
  return text;
}

class Completion : public ::testing::Test {
 protected:
  TestServer server_;
};

TEST_F(Completion, answers_a_conversation) {
  const HttpAnswer answer =
      server_.chat({{"model", "llama"}, {"max_tokens", 6}, {"temperature", 0}, {"ignore_eos", true}});
  ASSERT_EQ(answer.status, 200) << answer.body;
  const Json body = answer.json();
  EXPECT_EQ(body["object"], "chat.completion");
  EXPECT_EQ(body["model"], "llama");
  EXPECT_EQ(body["choices"][0]["message"]["role"], "assistant");
  EXPECT_EQ(body["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(body["usage"]["completion_tokens"], 6);
  const OrderedJson messages = {{{"role", "user"}, {"content", "Hello"}}};
  EXPECT_EQ(body["usage"]["prompt_tokens"], server_.model().chat_prompt(messages).size());
  EXPECT_EQ(answer.headers.at("content-type"), "application/json");
}

TEST_F(Completion, streams_the_same_text_and_ends_with_usage) {
  for (const char* route : {"/v1/chat/completions", "/v1/completions"}) {
    const bool chat = std::string_view(route).ends_with("chat/completions");
    Json request{{"max_tokens", 40}, {"temperature", 0}};
    if (chat)
      request["messages"] = {{{"role", "user"}, {"content", "Hello"}}};
    else
      request["prompt"] = "Hello";
    const Json whole = post(server_.port(), route, request).json();
    request["stream"] = true;
    request["stream_options"] = {{"include_usage", true}};
    const HttpAnswer answer = post(server_.port(), route, request);
    ASSERT_TRUE(answer.whole);
    EXPECT_EQ(answer.headers.at("content-type"), "text/event-stream");
    const std::vector<Json> events = events_of(answer.body);
    EXPECT_EQ(events.back(), "[DONE]");
    const Json& last = events[events.size() - 2];
    EXPECT_TRUE(last["choices"].empty());
    EXPECT_EQ(last["usage"]["completion_tokens"], whole["usage"]["completion_tokens"]);
    EXPECT_TRUE(events.front()["usage"].is_null());
    const Json& choice = whole["choices"][0];
    const Json& text = chat ? choice["message"]["content"] : choice["text"];
    EXPECT_EQ(streamed_text(events), text.get<std::string>());
    EXPECT_EQ(events[events.size() - 3]["choices"][0]["finish_reason"], choice["finish_reason"]);
  }
}

TEST_F(Completion, gives_n_answers_to_each_prompt) {
  const Json body = server_
                        .complete({{"prompt", {"One", "Two"}},
                                   {"n", 3},
                                   {"max_tokens", 12},
                                   {"temperature", 2},
                                   {"seed", 5},
                                   {"ignore_eos", true}})
                        .json();
  ASSERT_EQ(body["choices"].size(), 6) << body;
  for (int i = 0; i < 6; ++i) EXPECT_EQ(body["choices"][i]["index"], i);
  EXPECT_NE(body["choices"][0]["text"], body["choices"][1]["text"]) << "each choice is drawn by itself";
  EXPECT_EQ(body["usage"]["completion_tokens"], 72);
  EXPECT_EQ(body["usage"]["prompt_tokens"],
            server_.model().text_prompt("One").size() + server_.model().text_prompt("Two").size());

  const std::vector<Json> events =
      events_of(server_.chat({{"n", 3}, {"max_tokens", 4}, {"stream", true}, {"temperature", 1}}).body);
  std::map<int, int> ends;
  for (const Json& event : events)
    if (event.is_object() && !event["choices"][0]["finish_reason"].is_null()) ++ends[event["choices"][0]["index"]];
  EXPECT_EQ(ends, (std::map<int, int>{{0, 1}, {1, 1}, {2, 1}}));
}

TEST_F(Completion, a_seed_fixes_the_answer) {
  const Json request{{"max_tokens", 16}, {"temperature", 1.5}, {"seed", -7}, {"ignore_eos", true}};
  const Json first = server_.complete(request).json();
  EXPECT_EQ(first["choices"][0]["text"], server_.complete(request).json()["choices"][0]["text"]);
  std::set<std::string> others;
  for (int i = 0; i < 4; ++i)
    others.insert(server_.complete({{"max_tokens", 16}, {"temperature", 1.5}, {"ignore_eos", true}})
                      .json()["choices"][0]["text"]);
  EXPECT_GT(others.size(), 1U) << "without one, answers differ";
}

TEST_F(Completion, stop_strings_end_across_the_borders_of_tokens) {
  const Json request{{"max_tokens", 40}, {"temperature", 0}, {"ignore_eos", true}, {"logprobs", 0}};
  const Json whole = server_.complete(request).json()["choices"][0];
  const std::string text = whole["text"];
  // The end of one token and the beginning of the next, where both are plain text.
  const Json& offsets = whole["logprobs"]["text_offset"];
  const Json& tokens = whole["logprobs"]["tokens"];
  std::size_t at = 0;
  std::string stop;
  for (std::size_t i = 1; i + 1 < tokens.size() && stop.empty(); ++i) {
    const std::string left = tokens[i], right = tokens[i + 1], both = left + right;
    if (both.size() < 4 || both.find("\xEF\xBF\xBD") != std::string::npos) continue;
    at = text.find(both);
    if (at == std::string::npos || text.find(both.substr(1, both.size() - 2)) != at + 1) continue;
    stop = both.substr(1, both.size() - 2);
  }
  ASSERT_FALSE(stop.empty()) << "the model's text has no place to try: " << text << offsets;
  for (const bool stream : {false, true}) {
    Json asking = request;
    asking["stop"] = {"never said", stop};
    asking["stream"] = stream;
    const HttpAnswer answer = server_.complete(asking);
    const std::vector<Json> events = stream ? events_of(answer.body) : std::vector<Json>{answer.json()};
    EXPECT_EQ(streamed_text(events), text.substr(0, at + 1));
    EXPECT_EQ(events[stream ? events.size() - 2 : 0]["choices"][0]["finish_reason"], "stop");
  }
}

TEST_F(Completion, log_probabilities_have_the_shape_of_each_interface) {
  const Json chat =
      server_.chat({{"max_tokens", 5}, {"logprobs", true}, {"top_logprobs", 3}, {"ignore_eos", true}}).json();
  const Json& content = chat["choices"][0]["logprobs"]["content"];
  ASSERT_EQ(content.size(), 5) << chat;
  for (const Json& token : content) {
    EXPECT_LE(token["logprob"], 0.0);
    EXPECT_EQ(token["top_logprobs"].size(), 3);
    EXPECT_TRUE(token["bytes"].is_array());
  }
  const Json text =
      server_.complete({{"max_tokens", 5}, {"logprobs", 2}, {"temperature", 0}, {"ignore_eos", true}}).json();
  const Json& logprobs = text["choices"][0]["logprobs"];
  EXPECT_EQ(logprobs["tokens"].size(), 5);
  EXPECT_EQ(logprobs["token_logprobs"].size(), 5);
  EXPECT_EQ(logprobs["top_logprobs"].size(), 5);
  EXPECT_EQ(logprobs["text_offset"][0], 0);
  std::int64_t streamed = 0;
  for (const Json& event :
       events_of(server_.chat({{"max_tokens", 5}, {"logprobs", true}, {"stream", true}, {"ignore_eos", true}}).body))
    if (event.is_object() && !event["choices"][0]["logprobs"].is_null())
      streamed += static_cast<std::int64_t>(event["choices"][0]["logprobs"]["content"].size());
  EXPECT_EQ(streamed, 5);
  EXPECT_TRUE(server_.chat({{"max_tokens", 2}}).json()["choices"][0]["logprobs"].is_null());
}

TEST_F(Completion, logit_bias_decides) {
  const std::int32_t id = 70;
  const Json body = server_.complete({{"max_tokens", 4}, {"temperature", 0}, {"logit_bias", {{"70", 100}}}}).json();
  std::string expected;
  for (int i = 0; i < 4; ++i) expected += server_.model().tokenizer.token_bytes(id);
  EXPECT_EQ(body["choices"][0]["text"], expected);
}

TEST_F(Completion, echo_begins_with_the_prompt) {
  const Json plain = server_.complete({{"prompt", "Tell me"}, {"max_tokens", 5}, {"temperature", 0}}).json();
  Json asking{{"prompt", "Tell me"}, {"max_tokens", 5}, {"temperature", 0}, {"echo", true}};
  const std::string expected = "Tell me" + plain["choices"][0]["text"].get<std::string>();
  EXPECT_EQ(server_.complete(asking).json()["choices"][0]["text"], expected);
  asking["stream"] = true;
  EXPECT_EQ(streamed_text(events_of(server_.complete(asking).body)), expected);
}

TEST_F(Completion, prompts_may_be_token_ids) {
  const Json text = server_.complete({{"prompt", "Tell me"}, {"max_tokens", 5}, {"temperature", 0}}).json();
  const Json ids =
      server_.complete({{"prompt", server_.model().text_prompt("Tell me")}, {"max_tokens", 5}, {"temperature", 0}})
          .json();
  EXPECT_EQ(text["choices"][0]["text"], ids["choices"][0]["text"]);
}

TEST_F(Completion, the_answer_ends_where_the_context_does) {
  const Json body = server_.chat({{"ignore_eos", true}}).json();
  EXPECT_EQ(body["usage"]["total_tokens"], 512) << "without max_tokens";
  EXPECT_EQ(body["choices"][0]["finish_reason"], "length");
}

TEST_F(Completion, prefixes_are_shared_within_a_salt_only) {
  const std::string prompt(300, 'x');
  const auto cached = [&](Json more) {
    more.update({{"prompt", prompt}, {"max_tokens", 1}});
    return server_.complete(more).json()["usage"]["prompt_tokens_details"]["cached_tokens"].get<int>();
  };
  EXPECT_EQ(cached({}), 0);
  EXPECT_GE(cached({}), 64);
  EXPECT_EQ(cached({{"cache_salt", "a"}}), 0);
  EXPECT_GE(cached({{"cache_salt", "a"}}), 64);
  EXPECT_EQ(cached({{"cache_salt", "b"}}), 0);
}

TEST_F(Completion, unknown_fields_are_passed_over_and_counted) {
  EXPECT_EQ(server_.chat({{"max_tokens", 1}, {"no_such_field", 1}, {"another", {{"a", 1}}}}).status, 200);
  EXPECT_THAT(get(server_.port(), "/metrics").body, HasSubstr("tandem:unknown_fields_total 2\n"));
}

TEST(CompletionCancel, a_client_that_leaves_is_forgotten_and_its_cache_freed) {
  TestServer server({.step_ms = 20});
  for (const bool stream : {true, false})
    for (const bool hard : {true, false}) {
      HttpClient client(server.port());
      client.post("/v1/completions",
                  Json{{"prompt", "Hi"}, {"max_tokens", 500}, {"ignore_eos", true}, {"stream", stream}}.dump());
      if (stream) {
        ASSERT_TRUE(client.wait_for("data: "));
      }
      ASSERT_TRUE(eventually([&] { return server.engine_requests() == 1; }));
      hard ? client.reset() : client.close();
      EXPECT_TRUE(server.wait_idle(3)) << "500 steps of 20 ms would take 10 s";
    }
  EXPECT_EQ(server->service().metrics.clients_gone, 4);
  EXPECT_EQ(server->service().metrics.finished[static_cast<std::size_t>(FinishReason::kCancelled)], 4);
}

TEST(CompletionCancel, the_other_choices_and_clients_go_on) {
  TestServer server({.step_ms = 5});
  HttpClient leaves(server.port()), stays(server.port());
  const Json request{{"prompt", "Hi"},   {"max_tokens", 60}, {"ignore_eos", true},
                     {"temperature", 0}, {"stream", true},   {"n", 2}};
  leaves.post("/v1/completions", request.dump());
  stays.post("/v1/completions", request.dump());
  ASSERT_TRUE(leaves.wait_for("data: "));
  leaves.reset();
  const HttpAnswer answer = stays.answer();
  EXPECT_TRUE(answer.whole);
  const Json alone =
      server.complete({{"prompt", "Hi"}, {"max_tokens", 60}, {"ignore_eos", true}, {"temperature", 0}}).json();
  const auto text = alone["choices"][0]["text"].get<std::string>();
  for (const int index : {0, 1}) EXPECT_EQ(streamed_text(events_of(answer.body), index), text);
}

TEST(CompletionLimits, streams_and_queue_refuse_what_is_too_much) {
  TestServerConfig config{.step_ms = 20};
  config.settings.streams_max = 3;
  TestServer server(std::move(config));
  HttpClient busy(server.port());
  busy.post("/v1/completions", Json{{"prompt", "Hi"}, {"max_tokens", 500}, {"ignore_eos", true}, {"n", 2}}.dump());
  ASSERT_TRUE(eventually([&] { return server.engine_requests() == 2; }));
  const HttpAnswer refused = server.complete({{"n", 2}, {"max_tokens", 1}});
  EXPECT_EQ(refused.status, 429);
  EXPECT_EQ(refused.headers.at("retry-after"), "1");
  EXPECT_THAT(refused.error()["message"], HasSubstr("--streams-max"));
  EXPECT_EQ(server.complete({{"max_tokens", 1}}).status, 200) << "one more has a place";

  TestServer narrow({.step_ms = 20, .queue_max = 1, .sequences_max = 1});
  std::vector<HttpClient> clients;
  for (int i = 0; i < 2; ++i) {
    clients.emplace_back(narrow.port());
    clients.back().post("/v1/completions", Json{{"prompt", "Hi"}, {"max_tokens", 500}, {"ignore_eos", true}}.dump());
    ASSERT_TRUE(eventually([&] {
      const Scheduler::Load load = narrow.engine().attention_workers().front()->load();
      return load.running == 1 && load.waiting == i;
    }));
  }
  const HttpAnswer full = narrow.complete({{"max_tokens", 1}});
  EXPECT_EQ(full.status, 429) << full.body;
  EXPECT_THAT(full.error()["message"], HasSubstr("--queue-max"));
}

// ---- reasoning and calls, from answers by script

constexpr const char* kTwoCalls =
    "I need it.\n</think>\n\nLet me look.\n<｜tool_calls_begin｜>\n<｜tool_call_begin｜>\nfunction<｜tool_sep｜>"
    "<steptml:invoke name=\"weather\"><steptml:parameter name=\"city\">Rome <3</steptml:parameter>"
    "<steptml:parameter "
    "name=\"days\">2</steptml:parameter></steptml:invoke><｜tool_call_end｜>\n<｜tool_call_begin｜>\n"
    "function<｜tool_sep｜><steptml:invoke name=\"weather\"></steptml:invoke><｜tool_call_end｜>\n<｜tool_calls_end｜>";

Json weather_request() {
  return {{"messages", {{{"role", "user"}, {"content", "Weather?"}}}},
          {"tools", Json::parse(R"([{"type": "function", "function": {"name": "weather", "parameters": {
             "type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}}}])")}};
}

TestServerConfig scripted(const char* script) {
  TestServerConfig config;
  config.model = "tests/goldens/step3_text_bf16";
  config.script = script;
  return config;
}

TEST(Calls, whole_answers_have_reasoning_content_and_calls) {
  const TestServer server(scripted(kTwoCalls));
  const HttpAnswer answer = server.chat(weather_request());
  ASSERT_EQ(answer.status, 200) << answer.body;
  const Json choice = answer.json()["choices"][0];
  EXPECT_EQ(choice["finish_reason"], "tool_calls");
  const Json& message = choice["message"];
  EXPECT_EQ(message["reasoning_content"], "I need it.");
  EXPECT_EQ(message["content"], "Let me look.");
  ASSERT_EQ(message["tool_calls"].size(), 2) << message;
  EXPECT_EQ(message["tool_calls"][0]["type"], "function");
  EXPECT_EQ(message["tool_calls"][0]["function"]["name"], "weather");
  EXPECT_EQ(Json::parse(message["tool_calls"][0]["function"]["arguments"].get<std::string>()),
            Json::parse(R"({"city": "Rome <3", "days": 2})"));
  EXPECT_EQ(message["tool_calls"][1]["function"]["arguments"], "{}");
  EXPECT_NE(message["tool_calls"][0]["id"], message["tool_calls"][1]["id"]);
}

TEST(Calls, streams_say_the_same_in_pieces) {
  const TestServer server(scripted(kTwoCalls));
  Json request = weather_request();
  request["stream"] = true;
  std::string reasoning, content, finish;
  std::vector<Json> calls;
  for (const Json& event : events_of(server.chat(request).body)) {
    if (!event.is_object()) continue;
    const Json& choice = event["choices"][0];
    reasoning += choice["delta"].value("reasoning_content", "");
    content += choice["delta"].value("content", "");
    if (choice["delta"].contains("tool_calls")) calls.push_back(choice["delta"]["tool_calls"][0]);
    if (choice["finish_reason"].is_string()) finish += choice["finish_reason"];
  }
  EXPECT_EQ(reasoning, "I need it.");
  EXPECT_EQ(content, "Let me look.");
  EXPECT_EQ(finish, "tool_calls") << "once, at the end";
  std::string arguments[2];
  int begun = 0;
  for (const Json& call : calls) {
    const int index = call["index"];
    if (call.contains("id")) {
      EXPECT_EQ(index, begun++);
      EXPECT_EQ(call["type"], "function");
      EXPECT_EQ(call["function"]["name"], "weather");
    }
    ASSERT_LT(index, begun) << "a call is named before it has arguments";
    arguments[index] += call["function"]["arguments"];
  }
  EXPECT_EQ(Json::parse(arguments[0]), Json::parse(R"({"city": "Rome <3", "days": 2})"));
  EXPECT_EQ(arguments[1], "{}");
  EXPECT_GT(calls.size(), 6U) << "arguments come in pieces";
}

TEST(Calls, one_at_most_when_they_must_not_be_parallel) {
  const TestServer server(scripted(kTwoCalls));
  Json request = weather_request();
  request["parallel_tool_calls"] = false;
  EXPECT_EQ(server.chat(request).json()["choices"][0]["message"]["tool_calls"].size(), 1);
}

TEST(Calls, without_tools_marks_are_text) {
  const TestServer server(scripted(kTwoCalls));
  Json request = weather_request();
  request["tool_choice"] = "none";
  const Json choice = server.chat(request).json()["choices"][0];
  EXPECT_EQ(choice["finish_reason"], "stop");
  EXPECT_FALSE(choice["message"].contains("tool_calls"));
  EXPECT_THAT(choice["message"]["content"].get<std::string>(), HasSubstr("<｜tool_calls_begin｜>"));
}

TEST(Calls, an_answer_that_is_cut_says_length) {
  const TestServer server(scripted(kTwoCalls));
  Json request = weather_request();
  request["max_tokens"] = 2;
  const Json choice = server.chat(request).json()["choices"][0];
  EXPECT_EQ(choice["finish_reason"], "length");
  EXPECT_TRUE(choice["message"]["content"].is_null()) << "all of it is reasoning";
}

TEST(Calls, parsers_can_be_named) {
  TestServerConfig config;
  config.script = R"(<think>a</think><tool_call>{"name": "weather", "arguments": {"city": "R"}}</tool_call>)";
  config.settings.tool_call_parser = "hermes";
  config.settings.reasoning_parser = "qwen3";
  const TestServer server(config);
  const Json message = server.chat(weather_request()).json()["choices"][0]["message"];
  EXPECT_EQ(message["reasoning_content"], "a");
  EXPECT_EQ(message["tool_calls"][0]["function"]["arguments"], R"({"city": "R"})");
  config.settings.tool_call_parser = "gpt";
  EXPECT_THROW(TestServer{config}, Error);
}

}  // namespace
}  // namespace tandem
