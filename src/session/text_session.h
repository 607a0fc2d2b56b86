// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Requests in tokens, answers in text: one client's view of an engine. Tokens that come back become text (whole
// characters only), stop strings end an answer, and the token that ended it is not shown.
//
//   TextSession session(engine, model);
//   session.submit({.prompt = model.text_prompt("Once upon"), .new_tokens_max = 64});
//   while (session.running() > 0)
//     if (auto news = session.next(kForever)) std::cout << news->text;
//
// Any number of requests run at once; their news arrive in the order of events. One thread; the engine and the model
// must outlive it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "session/open_model.h"

namespace tandem {

struct TextRequest {
  std::vector<std::int32_t> prompt;
  std::vector<PlacedPicture> pictures;  // in the prompt
  std::int32_t new_tokens_max = 0;      // 0: as many as the context has room for
  std::vector<std::string> stop;        // strings that end the answer; they are not part of it
  bool ignore_stop_ids = false;         // go on after a token that ends an answer
  std::vector<std::int32_t> shown;      // special tokens, ascending, that are part of the text; the others are not
  SamplingParams sampling;
  std::shared_ptr<TokenConstraint> constraint;  // of this request alone; none: the answer is free
  std::uint64_t cache_salt = 0;
};

struct TextNews {
  RequestId id = 0;
  std::string text;                  // what came since the last news
  std::vector<SampledToken> tokens;  // the tokens behind it; text may be a few characters late
  FinishReason finish = FinishReason::kNone;
  Status status;  // why, when finish is kError
  std::int64_t prompt_tokens = 0, cached_tokens = 0;
  std::int64_t answer_tokens = 0;  // so far, the one that ended the answer included
};

class TextSession {
 public:
  // on_news, when there is one, is called as EventStream::listen says: for who cannot wait in next().
  TextSession(Engine& engine, const OpenModel& model, std::function<void()> on_news = {});
  ~TextSession();  // cancels what still runs; on_news is not called after it

  // Refuses what can be seen to be wrong at once; the rest ends with news of kError.
  Result<RequestId> submit(TextRequest request);
  // The answer ends as kCancelled, with what it has.
  void cancel(RequestId id);
  // Waits up to timeout for news.
  std::optional<TextNews> next(Nanoseconds timeout);
  std::size_t running() const { return answers_.size(); }

 private:
  struct Answer;
  TextNews take(RequestEvent event, Answer& answer);

  Engine& engine_;
  const OpenModel& model_;
  std::shared_ptr<EventStream> events_;
  std::map<RequestId, std::unique_ptr<Answer>> answers_;
};

}  // namespace tandem
