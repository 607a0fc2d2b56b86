// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// One answer as it grows, and the line of JSON it becomes.
#pragma once

#include <string>

#include "base/json.h"
#include "session/text_session.h"

namespace tandem {

struct CompletionFormat {
  bool token_ids = false;  // list the ids of the answer
  bool text_only = false;  // no JSON: the text as it is
};

class PromptCompletion {
 public:
  // id is what the client calls it; logprobs: whether tokens are listed with theirs.
  explicit PromptCompletion(OrderedJson id, bool logprobs = false) : id_(std::move(id)), logprobs_(logprobs) {}

  void add(const TextNews& news);
  void fail(const Error& error);
  bool done() const { return finish_ != FinishReason::kNone; }
  bool failed() const { return finish_ == FinishReason::kError; }
  // Why, when failed.
  const Status& status() const { return status_; }

  // With a line end. The tokenizer names the tokens of logprobs.
  std::string line(const Tokenizer& tokenizer, const CompletionFormat& format) const;

 private:
  OrderedJson json(const Tokenizer& tokenizer, bool token_ids) const;

  OrderedJson id_;
  bool logprobs_;
  std::string text_;
  std::vector<SampledToken> tokens_;
  FinishReason finish_ = FinishReason::kNone;
  Status status_;
  std::int64_t prompt_tokens_ = 0, cached_tokens_ = 0, answer_tokens_ = 0;
};

}  // namespace tandem
