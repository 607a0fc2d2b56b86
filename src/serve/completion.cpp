// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "serve/completion.h"

#include <algorithm>
#include <cstring>
#include <ctime>

#include "base/format.h"
#include "session/grammar_constraint.h"

namespace tandem {

namespace {

double seconds(Nanoseconds time) {
  return static_cast<double>(time) * 1e-9;
}

std::uint64_t drawn_seed() {
  const Digest drawn = digest(random_hex(16));
  std::uint64_t seed = 0;
  std::memcpy(&seed, drawn.data(), sizeof seed);
  return seed;
}

}  // namespace

StreamPlaces::StreamPlaces(Service& service, std::int64_t count) : service_(service), count_(count) {
  const std::int64_t open = service.metrics.answers_running += count;
  if (open <= service.settings.streams_max) return;
  service.metrics.answers_running -= count;
  throw ApiError(429,
                 format("{} answers are under way and {} are asked for, limit is {} (--streams-max)", open - count,
                        count, service.settings.streams_max),
                 {}, "overloaded");
}

CompletionReply::CompletionReply(Service& service, CompletionRequest request, const HttpRequest& http, const Wake& wake)
    : service_(service),
      request_(std::move(request)),
      client_(http.client),
      arrival_(service.clock.now()),
      places_(service, request_.choices()),
      session_(service.engine, service.model, wake) {
  const bool chat = request_.endpoint == Endpoint::kChat;
  answer_head_ = {request_.endpoint, (chat ? "chatcmpl-" : "cmpl-") + http.id, service.scope.model_name,
                  std::time(nullptr)};
  if (request_.stream) {
    http_head_.content_type = "text/event-stream";
    http_head_.headers.emplace_back("Cache-Control", "no-store");
  }
  if (!request_.seed) request_.seed = drawn_seed();
  service_.metrics.unknown_fields += request_.unknown_fields;
  cached_.resize(request_.prompts.size());
  for (std::size_t prompt = 0; prompt < request_.prompts.size(); ++prompt)
    for (std::int64_t i = 0; i < request_.n; ++i)
      choices_.push_back(
          {.index = static_cast<std::int64_t>(choices_.size()), .prompt = static_cast<std::int64_t>(prompt)});
  for (Choice& choice : choices_) submit(choice);
}

CompletionReply::~CompletionReply() {
  for (const Choice& choice : choices_)
    if (choice.finish == FinishReason::kNone)
      ++service_.metrics.finished[static_cast<std::size_t>(FinishReason::kCancelled)];
}

void CompletionReply::submit(Choice& choice) {
  const CompletionRequest::Prompt& prompt = request_.prompts[choice.prompt];
  TextRequest native = request_.options;
  native.prompt = prompt.ids;
  native.pictures = prompt.pictures;
  native.new_tokens_max = prompt.new_tokens_max;
  native.sampling.seed = *request_.seed + static_cast<std::uint64_t>(choice.index);
  if (request_.grammar)
    native.constraint = std::make_shared<GrammarConstraint>(request_.grammar->clone(), service_.model, request_.start);
  native.cache_salt = service_.salts.salt(client_, request_.cache_salt);
  Result<RequestId> id = session_.submit(std::move(native));
  if (!id) {
    for (Choice& refused : choices_) refused.finish = FinishReason::kError;
    throw api_error(id.error());
  }
  by_id_[id.value()] = choice.index;
  if (request_.echo) choice.text = prompt.text;
  if (request_.endpoint == Endpoint::kChat)
    choice.parser = std::make_unique<AnswerParser>(request_.start, request_.calls, request_.schemas);
}

// ---- news

void CompletionReply::measure(const TextNews& news, Choice& choice) {
  Metrics& metrics = service_.metrics;
  const Nanoseconds now = service_.clock.now();
  if (const auto count = static_cast<std::int64_t>(news.tokens.size()); count > 0) {
    if (choice.last_token == 0)
      metrics.first_token_seconds.observe(seconds(now - arrival_));
    else
      metrics.between_tokens_seconds.observe(seconds(now - choice.last_token) / static_cast<double>(count), count);
    choice.last_token = now;
    metrics.answer_tokens += count;
  }
  if (news.finish == FinishReason::kNone) return;
  ++metrics.finished[static_cast<std::size_t>(news.finish)];
  if (news.finish == FinishReason::kError) return;
  metrics.answer_seconds.observe(seconds(now - arrival_));
  metrics.answer_lengths.observe(static_cast<double>(news.answer_tokens));
  if (choice.index % request_.n != 0) return;  // a prompt counts once
  const auto prompt_tokens = static_cast<std::int64_t>(request_.prompts[choice.prompt].ids.size());
  metrics.prompt_tokens += prompt_tokens;
  metrics.prompt_lengths.observe(static_cast<double>(prompt_tokens));
}

void CompletionReply::take(TextNews& news, Choice& choice) {
  measure(news, choice);
  choice.answer_tokens = news.answer_tokens;
  cached_[choice.prompt] = std::max(cached_[choice.prompt], news.cached_tokens);
  if (choice.parser) {
    take_events(choice.parser->push(news.text), choice);
    if (news.finish != FinishReason::kNone) take_events(choice.parser->finish(), choice);
  } else {
    choice.text += news.text;
  }
  if (request_.logprobs) {
    const std::vector<std::int32_t>& stop_ids = service_.model.stop_ids;
    for (SampledToken& token : news.tokens)  // the token that ended the answer is no part of it
      if (request_.options.ignore_stop_ids || !std::ranges::binary_search(stop_ids, token.id))
        choice.tokens.push_back(std::move(token));
  }
  choice.finish = news.finish;
  if (news.finish != FinishReason::kNone) ++finished_;
}

void CompletionReply::take_events(AnswerEvents events, Choice& choice) {
  for (const AnswerEvent& event : events) {
    if (event.call > 0 && !request_.parallel_calls) continue;  // the client wants one call at most
    if (event.kind == AnswerEvent::Kind::kCallBegin) choice.call_ids.push_back("call_" + random_hex(12));
    add_event(choice.events, event.kind, event.text, event.call);
  }
}

// An answer that calls ends so that its calls be done.
OrderedJson CompletionReply::finish_of(const Choice& choice) const {
  if (choice.finish == FinishReason::kStop && !choice.call_ids.empty()) return "tool_calls";
  return finish_json(choice.finish);
}

Reply::Part CompletionReply::next() {
  std::string out;
  while (auto news = session_.next(0)) {
    const auto found = by_id_.find(news->id);
    if (found == by_id_.end()) continue;
    Choice& choice = choices_[found->second];
    take(*news, choice);
    if (news->finish == FinishReason::kError) return fail(news->status.error());
    if (request_.stream) {
      open_stream(out);
      stream(out, choice);
    }
  }
  if (!done()) return {std::move(out), false};
  if (!request_.stream) return whole();
  close_stream(out);
  return {std::move(out), true};
}

// One choice's failure ends the whole answer; the others' work is cancelled with the reply.
Reply::Part CompletionReply::fail(const Error& error) {
  const ApiError known = api_error(error);
  failed_ = true;
  if (opened_) return {event_of(error_json(known)), true};
  http_head_ = {.status = known.status};
  return {json_text(error_json(known)) + "\n", true};
}

OrderedJson CompletionReply::take_logprobs(Choice& choice) {
  if (!request_.logprobs) return nullptr;
  OrderedJson json = logprobs_json(request_.endpoint, choice.tokens, service_.model.tokenizer, choice.offset);
  for (const SampledToken& token : choice.tokens)
    choice.offset += service_.model.tokenizer.token_bytes(token.id).size();
  choice.tokens.clear();
  return json;
}

OrderedJson CompletionReply::whole_of(Choice& choice) {
  OrderedJson logprobs = take_logprobs(choice);
  if (!choice.parser) return text_choice(choice.index, std::move(choice.text), std::move(logprobs), finish_of(choice));
  ChatMessage message;
  for (AnswerEvent& event : choice.events) {
    if (event.kind == AnswerEvent::Kind::kReasoning) message.reasoning += event.text;
    if (event.kind == AnswerEvent::Kind::kContent) message.content += event.text;
    if (event.kind == AnswerEvent::Kind::kCallBegin)
      message.calls.push_back({choice.call_ids[event.call], std::move(event.text), {}});
    if (event.kind == AnswerEvent::Kind::kArguments) message.calls[event.call].arguments += event.text;
  }
  return chat_choice(choice.index, std::move(message), std::move(logprobs), finish_of(choice));
}

Reply::Part CompletionReply::whole() {
  OrderedJson choices = OrderedJson::array();
  Usage usage;
  for (Choice& choice : choices_) {
    usage.answer_tokens += choice.answer_tokens;
    choices.push_back(whole_of(choice));
  }
  for (std::size_t i = 0; i < request_.prompts.size(); ++i) {
    usage.prompt_tokens += static_cast<std::int64_t>(request_.prompts[i].ids.size());
    usage.cached_tokens += cached_[i];
  }
  return {json_text(answer_json(answer_head_, std::move(choices), usage)) + "\n", true};
}

// ---- streams

OrderedJson CompletionReply::chunk(OrderedJson choices) const {
  OrderedJson json = chunk_json(answer_head_, std::move(choices));
  if (request_.include_usage) json["usage"] = nullptr;  // only the last chunk has one
  return json;
}

void CompletionReply::open_stream(std::string& out) {
  if (opened_) return;
  opened_ = true;
  if (request_.endpoint != Endpoint::kChat) return;
  for (const Choice& choice : choices_)
    out += event_of(chunk(OrderedJson::array({chunk_choice(choice.index, opening_delta(), nullptr, nullptr)})));
}

void CompletionReply::stream(std::string& out, Choice& choice) {
  if (choice.parser) return stream_events(out, choice);
  const bool last = choice.finish != FinishReason::kNone;
  if (choice.text.empty() && choice.tokens.empty() && !last) return;
  OrderedJson logprobs = choice.tokens.empty() ? OrderedJson() : take_logprobs(choice);
  out += event_of(chunk(
      OrderedJson::array({text_choice(choice.index, std::move(choice.text), std::move(logprobs), finish_of(choice))})));
  choice.text.clear();
}

// A chunk for each event. Log probabilities go with the first, the reason of the end with the last.
void CompletionReply::stream_events(std::string& out, Choice& choice) {
  std::vector<OrderedJson> deltas;
  for (const AnswerEvent& event : choice.events)
    if (event.kind != AnswerEvent::Kind::kCallEnd)
      deltas.push_back(delta_of(event, choice.call_ids.empty() ? "" : choice.call_ids[event.call]));
  choice.events.clear();
  const bool last = choice.finish != FinishReason::kNone;
  if (deltas.empty() && (last || !choice.tokens.empty())) deltas.push_back(OrderedJson::object());
  for (std::size_t i = 0; i < deltas.size(); ++i) {
    OrderedJson logprobs = choice.tokens.empty() ? OrderedJson() : take_logprobs(choice);
    const bool ends = last && i + 1 == deltas.size();
    out += event_of(chunk(OrderedJson::array({chunk_choice(choice.index, std::move(deltas[i]), std::move(logprobs),
                                                           ends ? finish_of(choice) : OrderedJson())})));
  }
}

void CompletionReply::close_stream(std::string& out) {
  if (request_.include_usage) {
    Usage usage;
    for (const Choice& choice : choices_) usage.answer_tokens += choice.answer_tokens;
    for (std::size_t i = 0; i < request_.prompts.size(); ++i) {
      usage.prompt_tokens += static_cast<std::int64_t>(request_.prompts[i].ids.size());
      usage.cached_tokens += cached_[i];
    }
    OrderedJson last = chunk_json(answer_head_, OrderedJson::array());
    last["usage"] = usage_json(usage);
    out += event_of(last);
  }
  out += kLastEvent;
}

void CompletionReply::describe(OrderedJson& line) const {
  std::int64_t prompt_tokens = 0, answer_tokens = 0, cached_tokens = 0;
  std::string finish;
  for (const CompletionRequest::Prompt& prompt : request_.prompts)
    prompt_tokens += static_cast<std::int64_t>(prompt.ids.size());
  for (const std::int64_t cached : cached_) cached_tokens += cached;
  for (const Choice& choice : choices_) {
    answer_tokens += choice.answer_tokens;
    if (!finish.empty()) finish += ',';
    finish += choice.finish == FinishReason::kNone ? "cancelled" : name(choice.finish);
  }
  line["stream"] = request_.stream;
  line["prompt_tokens"] = prompt_tokens;
  line["cached_tokens"] = cached_tokens;
  line["answer_tokens"] = answer_tokens;
  line["finish"] = failed_ ? "error" : finish;
}

}  // namespace tandem
