// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A conversation with a model: what has been said, the next answer, and what it took. No terminal in here.
//
// The whole conversation is the prompt of every answer; the prefix cache makes the part that was computed before cheap.
// When it no longer fits the context, the oldest turns are left out.
#pragma once

#include <functional>
#include <string>

#include "session/text_session.h"

namespace tandem {

struct AnswerStats {
  double first_token_seconds = 0;  // from the question
  double seconds = 0;              // to the last token
  std::int64_t prompt_tokens = 0, cached_tokens = 0, answer_tokens = 0;

  // Of the tokens after the first.
  double tokens_per_second() const {
    return answer_tokens > 1 ? static_cast<double>(answer_tokens - 1) / (seconds - first_token_seconds) : 0;
  }
};

class ChatSession {
 public:
  // request brings sampling, stop strings and the longest answer; its prompt is not used.
  ChatSession(Engine& engine, const OpenModel& model, TextRequest request, std::string system);

  struct Answer {
    FinishReason finish = FinishReason::kNone;
    std::int64_t turns_dropped = 0;  // messages that were left out for room, from now on
    AnswerStats stats;
  };
  // Shows a picture with what is said next. Throws Error when it is none, or the model sees none.
  void show_picture(const std::string& path);
  // Says text to the model; show gets the answer as it comes, stop is asked often whether to end it. Throws Error when
  // there is no answer; the conversation is then as before.
  Answer ask(const std::string& text, const std::function<void(const std::string&)>& show,
             const std::function<bool()>& stop);
  // Forgets all turns.
  void clear();
  std::size_t turns() const { return messages_.size(); }

 private:
  TextRequest fitting_request(std::int64_t& turns_dropped);
  Answer receive(RequestId id, std::string& text, const std::function<void(const std::string&)>& show,
                 const std::function<bool()>& stop);
  void forget_oldest_turn();
  OrderedJson with_system() const;

  Engine& engine_;
  const OpenModel& model_;
  TextSession session_;
  const TextRequest request_;
  const std::string system_;
  OrderedJson messages_ = OrderedJson::array();
  // Of the conversation, in order; messages have a part {"type": "image"} for each.
  Pictures pictures_;
  std::int64_t pictures_next_ = 0;  // so many of the last ones belong to what is said next
  RealClock clock_;
};

}  // namespace tandem
