// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "session/text_session.h"

#include <algorithm>

#include "sched/admission.h"
#include "text/detokenizer.h"
#include "text/stop_matcher.h"

namespace tandem {

struct TextSession::Answer {
  Answer(const Tokenizer& tokenizer, const TextRequest& request)
      : text(tokenizer, true, request.shown), stop(request.stop), ends_at_ids(!request.ignore_stop_ids) {}
  Detokenizer text;
  StopMatcher stop;
  bool ends_at_ids;
  std::int64_t tokens = 0;
};

TextSession::TextSession(Engine& engine, const OpenModel& model, std::function<void()> on_news)
    : engine_(engine), model_(model), events_(std::make_shared<EventStream>()) {
  if (on_news) events_->listen(std::move(on_news));
}

TextSession::~TextSession() {
  events_->listen({});
  for (const auto& [id, answer] : answers_) engine_.cancel(id);
}

Result<RequestId> TextSession::submit(TextRequest request) {
  if (const Status sampling = check_sampling(request.sampling, engine_.model().vocab); !sampling)
    return {sampling.error().code(), sampling.error().message()};
  std::unique_ptr<Answer> answer;
  try {
    answer = std::make_unique<Answer>(model_.tokenizer, request);
  } catch (const Error& error) {  // stop strings that cannot be
    return {error.code(), error.message()};
  }
  Request native;
  native.id = engine_.next_id();
  const auto prompt_tokens = static_cast<std::int64_t>(request.prompt.size());
  const std::int64_t room = engine_.config().context_tokens_max - prompt_tokens;
  native.new_tokens_max =
      request.new_tokens_max != 0 ? request.new_tokens_max : static_cast<std::int32_t>(std::max<std::int64_t>(room, 1));
  native.prompt = std::move(request.prompt);
  if (!request.ignore_stop_ids) native.stop_ids = model_.stop_ids;
  native.sampling = std::move(request.sampling);
  native.constraint = std::move(request.constraint);
  native.cache_salt = request.cache_salt;
  const RequestId id = native.id;
  if (const Status submitted = engine_.submit(std::move(native), std::move(request.pictures), events_); !submitted)
    return {submitted.error().code(), submitted.error().message()};
  answers_[id] = std::move(answer);
  return id;
}

void TextSession::cancel(RequestId id) {
  if (answers_.contains(id)) engine_.cancel(id);
}

std::optional<TextNews> TextSession::next(Nanoseconds timeout) {
  std::optional<RequestEvent> event = events_->pop(timeout);
  if (!event) return std::nullopt;
  const auto found = answers_.find(event->id);
  if (found == answers_.end()) return std::nullopt;  // ended by a stop string; the engine had not heard yet
  TextNews news = take(std::move(*event), *found->second);
  if (news.finish != FinishReason::kNone) answers_.erase(found);
  return news;
}

TextNews TextSession::take(RequestEvent event, Answer& answer) {
  TextNews news;
  news.id = event.id;
  news.finish = event.finish;
  news.status = event.status;
  news.prompt_tokens = event.prompt_tokens;
  news.cached_tokens = event.cached_tokens;
  for (SampledToken& token : event.tokens) {
    ++answer.tokens;
    const bool ends = answer.ends_at_ids && std::ranges::binary_search(model_.stop_ids, token.id);
    StopMatcher::Output found;
    if (!ends) found = answer.stop.push(answer.text.push(token.id));
    news.text += found.text;
    news.tokens.push_back(std::move(token));
    if (!found.stopped) continue;
    engine_.cancel(event.id);
    news.finish = FinishReason::kStop;
    news.status = Status::ok();
    news.answer_tokens = answer.tokens;
    return news;
  }
  news.answer_tokens = answer.tokens;
  if (news.finish == FinishReason::kNone) return news;
  StopMatcher::Output rest = answer.stop.push(answer.text.finish());
  news.text += rest.text;
  if (rest.stopped)
    news.finish = FinishReason::kStop;
  else
    news.text += answer.stop.finish();
  return news;
}

}  // namespace tandem
