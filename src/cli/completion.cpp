// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "cli/completion.h"

#include <iterator>

namespace tandem {

namespace {

// Parts of characters are replaced when the line is written; the id tells them apart.
OrderedJson token_json(const Tokenizer& tokenizer, std::int32_t id, float logprob) {
  return {{"token", tokenizer.token_bytes(id)}, {"id", id}, {"logprob", logprob}};
}

}  // namespace

void PromptCompletion::add(const TextNews& news) {
  text_ += news.text;
  tokens_.insert(tokens_.end(), news.tokens.begin(), news.tokens.end());
  finish_ = news.finish;
  status_ = news.status;
  prompt_tokens_ = news.prompt_tokens;
  cached_tokens_ = news.cached_tokens;
  answer_tokens_ = news.answer_tokens;
}

void PromptCompletion::fail(const Error& error) {
  finish_ = FinishReason::kError;
  status_ = Status(error.code(), error.message());
}

OrderedJson PromptCompletion::json(const Tokenizer& tokenizer, bool token_ids) const {
  OrderedJson line;
  if (!id_.is_null()) line["id"] = id_;
  if (failed()) {
    line["error"] = {{"code", name(status_.error().code())}, {"message", status_.error().message()}};
    return line;
  }
  line["text"] = text_;
  line["finish_reason"] = name(finish_);
  line["usage"] = {
      {"prompt_tokens", prompt_tokens_}, {"cached_tokens", cached_tokens_}, {"completion_tokens", answer_tokens_}};
  if (token_ids) {
    OrderedJson ids = OrderedJson::array();
    for (const SampledToken& token : tokens_) ids.push_back(token.id);
    line["token_ids"] = std::move(ids);
  }
  if (logprobs_) {
    OrderedJson all = OrderedJson::array();
    for (const SampledToken& token : tokens_) {
      OrderedJson one = token_json(tokenizer, token.id, token.logprob);
      one["top"] = OrderedJson::array();
      for (const auto& [id, logprob] : token.top_logprobs) one["top"].push_back(token_json(tokenizer, id, logprob));
      all.push_back(std::move(one));
    }
    line["logprobs"] = std::move(all);
  }
  return line;
}

std::string PromptCompletion::line(const Tokenizer& tokenizer, const CompletionFormat& format) const {
  if (format.text_only && !failed()) return text_ + "\n";
  return to_line(json(tokenizer, format.token_ids)) + "\n";
}

}  // namespace tandem
