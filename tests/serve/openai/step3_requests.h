// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Chat requests to a server of the tiny Step-3, whose format has calls, read as its handlers read them.
#pragma once

#include <gtest/gtest.h>

#include "serve/openai/fields.h"
#include "serve/openai/request.h"

namespace tandem {

class Step3Requests : public ::testing::Test {
 protected:
  static const OpenModel& model() {
    static const OpenModel open = open_model("tests/goldens/step3_text_bf16");
    return open;
  }
  static const GrammarVocabulary& grammars() {
    static const GrammarVocabulary made(model().tokenizer, model().stop_ids);
    return made;
  }
  CompletionRequest read(const OrderedJson& body) const {
    return read_completion_request(body.dump(), Endpoint::kChat, scope_);
  }
  ApiError error(const OrderedJson& body) const {
    try {
      read(body);
    } catch (const ApiError& error) {
      return error;
    }
    ADD_FAILURE() << "no error for " << body;
    return {0, "none"};
  }

  RequestLimits limits_;
  RequestScope scope_{.model = model(),
                      .limits = limits_,
                      .grammars = grammars(),
                      .model_name = "step3",
                      .vocab = 512,
                      .context_tokens_max = 4096,
                      .kv_tokens = 8192,
                      .format = find_chat_format(model().tokenizer, model().template_source)};
};

}  // namespace tandem
