// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "cli/chat_session.h"

#include <algorithm>
#include <iterator>

#include "base/format.h"

namespace tandem {

namespace {

constexpr Nanoseconds kLookEvery = 20 * kMillisecond;  // at the stop function

// Room that is kept for an answer: a quarter of the context, at most this.
constexpr std::int64_t kAnswerTokensMin = 256;

}  // namespace

ChatSession::ChatSession(Engine& engine, const OpenModel& model, TextRequest request, std::string system)
    : engine_(engine),
      model_(model),
      session_(engine, model),
      request_(std::move(request)),
      system_(std::move(system)) {}

void ChatSession::clear() {
  messages_.clear();
  pictures_.clear();
  pictures_next_ = 0;
}

void ChatSession::show_picture(const std::string& path) {
  if (!model_.picture_tokens)
    throw Error(ErrorCode::kUnsupported, format("{} sees no pictures", model_.checkpoint->path()));
  add_picture(pictures_, open_picture_file(path), {});
  ++pictures_next_;
}

// A question with its pictures, and its answer.
void ChatSession::forget_oldest_turn() {
  const OrderedJson& content = messages_[0]["content"];
  const auto shown = std::ranges::count_if(
      content, [](const OrderedJson& part) { return part.is_object() && part["type"] == "image"; });
  pictures_.erase(pictures_.begin(), pictures_.begin() + shown);
  messages_.erase(messages_.begin(), messages_.begin() + 2);
}

OrderedJson ChatSession::with_system() const {
  OrderedJson all = OrderedJson::array();
  if (!system_.empty()) all.push_back({{"role", "system"}, {"content", system_}});
  all.insert(all.end(), messages_.begin(), messages_.end());
  return all;
}

// The request for the conversation as it is, less as many of its oldest turns as it takes.
TextRequest ChatSession::fitting_request(std::int64_t& turns_dropped) {
  const std::int64_t context = engine_.config().context_tokens_max;
  const std::int64_t reserve = std::min(kAnswerTokensMin, context / 4);
  TextRequest request = request_;
  while (true) {
    PicturePrompt prompt = model_.picture_prompt(with_system(), pictures_);
    request.prompt = std::move(prompt.ids);
    request.pictures = std::move(prompt.pictures);
    const auto tokens = static_cast<std::int64_t>(request.prompt.size());
    if (tokens + reserve <= context) {
      if (request.new_tokens_max > context - tokens)
        request.new_tokens_max = static_cast<std::int32_t>(context - tokens);
      return request;
    }
    if (messages_.size() < 3)  // the question alone
      throw Error(ErrorCode::kInvalidArgument,
                  format("prompt has {} tokens, limit is {} (--context-tokens-max, less {} for the answer)", tokens,
                         context - reserve, reserve));
    forget_oldest_turn();
    turns_dropped += 2;
  }
}

ChatSession::Answer ChatSession::ask(const std::string& text, const std::function<void(const std::string&)>& show,
                                     const std::function<bool()>& stop) {
  const OrderedJson before = messages_;
  const auto pictures_before = pictures_;
  OrderedJson content = text;
  if (pictures_next_ > 0) {
    content = OrderedJson::array();
    for (std::int64_t i = 0; i < pictures_next_; ++i) content.push_back({{"type", "image"}});
    content.push_back({{"type", "text"}, {"text", text}});
  }
  messages_.push_back({{"role", "user"}, {"content", content}});
  try {
    std::int64_t turns_dropped = 0;
    Result<RequestId> id = session_.submit(fitting_request(turns_dropped));
    if (!id) throw id.error();
    std::string said;
    Answer answer = receive(id.value(), said, show, stop);
    answer.turns_dropped = turns_dropped;
    messages_.push_back({{"role", "assistant"}, {"content", said}});
    pictures_next_ = 0;
    return answer;
  } catch (const Error&) {
    messages_ = before;
    pictures_ = pictures_before;
    throw;
  }
}

ChatSession::Answer ChatSession::receive(RequestId id, std::string& text,
                                         const std::function<void(const std::string&)>& show,
                                         const std::function<bool()>& stop) {
  Answer answer;
  AnswerStats& stats = answer.stats;
  const Nanoseconds begin = clock_.now();
  const auto elapsed = [&] { return static_cast<double>(clock_.now() - begin) * 1e-9; };
  bool cancelled = false;
  while (answer.finish == FinishReason::kNone) {
    if (!cancelled && stop()) {
      session_.cancel(id);
      cancelled = true;
    }
    const std::optional<TextNews> news = session_.next(kLookEvery);
    if (!news || news->id != id) continue;
    if (!news->tokens.empty()) {
      if (stats.answer_tokens == 0) stats.first_token_seconds = elapsed();
      stats.seconds = elapsed();
    }
    stats.prompt_tokens = news->prompt_tokens;
    stats.cached_tokens = news->cached_tokens;
    stats.answer_tokens = news->answer_tokens;
    text += news->text;
    if (!news->text.empty() && !cancelled) show(news->text);
    answer.finish = news->finish;
    if (news->finish == FinishReason::kError) throw news->status.error();
  }
  return answer;
}

}  // namespace tandem
