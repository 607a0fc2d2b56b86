// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A completion under way: its choices run in the engine, and the reply is made of their news, whole or as server-sent
// events. The state of a stream lives here, with the HTTP response; destroying it cancels what still runs.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "chat_format/answer_parser.h"
#include "serve/http/message.h"
#include "serve/openai/response.h"
#include "serve/service.h"

namespace tandem {

class CompletionReply final : public Reply {
 public:
  // client: of HttpRequest. Throws ApiError when the request is refused at once.
  CompletionReply(Service& service, CompletionRequest request, const HttpRequest& http, const Wake& wake);
  ~CompletionReply() override;

  Part next() override;
  const HttpHead& head() const override { return http_head_; }
  void describe(OrderedJson& line) const override;

 private:
  struct Choice {
    std::int64_t index = 0, prompt = 0;
    std::unique_ptr<AnswerParser> parser;  // of a chat
    std::string text;                      // not sent yet; of a chat: in events
    AnswerEvents events;
    std::vector<std::string> call_ids;
    std::vector<SampledToken> tokens;  // for log probabilities, not sent yet
    std::size_t offset = 0;            // of the answer's text so far
    std::int64_t answer_tokens = 0;
    FinishReason finish = FinishReason::kNone;
    Nanoseconds last_token = 0;  // 0: none yet
  };

  void submit(Choice& choice);
  void take(TextNews& news, Choice& choice);
  void measure(const TextNews& news, Choice& choice);
  Part fail(const Error& error);
  Part whole();
  void take_events(AnswerEvents events, Choice& choice);
  OrderedJson finish_of(const Choice& choice) const;
  OrderedJson whole_of(Choice& choice);
  void stream(std::string& out, Choice& choice);
  void stream_events(std::string& out, Choice& choice);
  void open_stream(std::string& out);
  void close_stream(std::string& out);
  OrderedJson take_logprobs(Choice& choice);
  OrderedJson chunk(OrderedJson choices) const;
  bool done() const { return finished_ == choices_.size(); }

  Service& service_;
  CompletionRequest request_;
  const std::size_t client_;
  const Nanoseconds arrival_;
  StreamPlaces places_;
  AnswerHead answer_head_;
  HttpHead http_head_;
  TextSession session_;
  std::vector<Choice> choices_;
  std::map<RequestId, std::size_t> by_id_;
  std::vector<std::int64_t> cached_;  // of each prompt
  std::size_t finished_ = 0;
  bool opened_ = false, failed_ = false;
};

}  // namespace tandem
