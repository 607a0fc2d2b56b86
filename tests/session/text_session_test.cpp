// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "session/text_session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "base/error.h"

namespace tandem {
namespace {

using testing::HasSubstr;

struct Whole {
  std::string text;
  std::vector<std::int32_t> ids;
  TextNews last;
};

class TextSessionTest : public testing::Test {
 protected:
  static EngineConfig config() {
    EngineConfig c;
    c.layout = {1, 1};
    c.context_tokens_max = 256;
    c.sequences_max = 4;
    return c;
  }
  TextRequest request(const std::string& prompt, std::int32_t tokens) const {
    TextRequest r;
    r.prompt = model_.text_prompt(prompt);
    r.new_tokens_max = tokens;
    return r;
  }
  // All that run, by id.
  std::map<RequestId, Whole> finish_all() {
    std::map<RequestId, Whole> all;
    while (session_.running() > 0) {
      const std::optional<TextNews> news = session_.next(60'000'000'000);
      if (!news) continue;
      Whole& whole = all[news->id];
      whole.text += news->text;
      for (const SampledToken& token : news->tokens) whole.ids.push_back(token.id);
      whole.last = *news;
    }
    return all;
  }
  Whole finish(TextRequest request) {
    const RequestId id = session_.submit(std::move(request)).value();
    return finish_all()[id];
  }

  const OpenModel model_ = open_model("tests/goldens/llama");
  const std::unique_ptr<Engine> engine_ = Engine::start(*model_.checkpoint, config());
  TextSession session_{*engine_, model_};
};

TEST_F(TextSessionTest, TextIsThatOfTheTokens) {
  const Whole whole = finish(request("The licence does not cover", 40));
  EXPECT_EQ(whole.text, model_.tokenizer.decode(whole.ids, true));
  EXPECT_EQ(whole.last.answer_tokens, 40);
  EXPECT_EQ(whole.last.finish, FinishReason::kLength);
  EXPECT_EQ(whole.last.prompt_tokens,
            static_cast<std::int64_t>(model_.text_prompt("The licence does not cover").size()));
}

TEST_F(TextSessionTest, AStopStringEndsAnAnswerAndNoOther) {
  const Whole free = finish(request("The licence does not cover", 40));
  const std::string stop = free.text.substr(free.text.size() / 2, 3);
  TextRequest stopped = request("The licence does not cover", 40);
  stopped.stop = {stop};
  const RequestId first = session_.submit(std::move(stopped)).value();
  const RequestId second = session_.submit(request("The licence does not cover", 40)).value();
  const auto all = finish_all();
  EXPECT_EQ(all.at(first).text, free.text.substr(0, free.text.find(stop)));
  EXPECT_EQ(all.at(first).last.finish, FinishReason::kStop);
  EXPECT_LT(all.at(first).last.answer_tokens, 40);
  EXPECT_EQ(all.at(second).text, free.text);
}

TEST_F(TextSessionTest, TheTokenThatEndsAnAnswerIsNotShown) {
  TextRequest ends = request("The licence", 40);
  ends.sampling.logit_bias = {{510, 1e4f}};
  const Whole whole = finish(ends);
  EXPECT_EQ(whole.text, "");
  EXPECT_EQ(whole.last.finish, FinishReason::kStop);
  EXPECT_EQ(whole.last.answer_tokens, 1);
  ends.ignore_stop_ids = true;
  const Whole whole_on = finish(ends);
  EXPECT_EQ(whole_on.last.finish, FinishReason::kLength);
  EXPECT_EQ(whole_on.last.answer_tokens, 40);
}

TEST_F(TextSessionTest, ACancelledAnswerEnds) {
  TextRequest endless = request("The licence", 0);  // what the context has room for
  endless.ignore_stop_ids = true;
  const RequestId id = session_.submit(std::move(endless)).value();
  session_.cancel(id);
  const Whole whole = finish_all()[id];
  EXPECT_EQ(whole.last.finish, FinishReason::kCancelled);
  EXPECT_LT(whole.last.answer_tokens, 250);
}

TEST_F(TextSessionTest, WithoutALimitTheContextIsFilled) {
  TextRequest endless = request("The licence", 0);
  endless.ignore_stop_ids = true;
  const auto prompt = static_cast<std::int64_t>(endless.prompt.size());
  EXPECT_EQ(finish(std::move(endless)).last.answer_tokens, 256 - prompt);
}

TEST_F(TextSessionTest, WhatTheSchedulerRefusesEndsAsAnError) {
  TextRequest longer = request("a", 4);
  longer.prompt.assign(1000, 3);
  const Whole whole = finish(std::move(longer));
  EXPECT_EQ(whole.last.finish, FinishReason::kError);
  EXPECT_THAT(whole.last.status.error().message(), HasSubstr("limit is"));
}

TEST_F(TextSessionTest, RefusesStopStringsThatCannotBe) {
  TextRequest empty = request("a", 4);
  empty.stop = {""};
  EXPECT_FALSE(session_.submit(std::move(empty)).is_ok());
  EXPECT_EQ(session_.running(), 0u);
}

}  // namespace
}  // namespace tandem
