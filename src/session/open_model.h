// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A checkpoint together with what turns text into its tokens and back: tokenizer, chat template, the tokens that end an
// answer. No weight is read here; Engine::start does that.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "checkpoint/checkpoint.h"
#include "session/pictures.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace tandem {

struct OpenModel {
  std::unique_ptr<Checkpoint> checkpoint;
  Tokenizer tokenizer;
  std::optional<ChatTemplate> chat_template;    // none: the model completes text and knows no turns
  std::string template_source;                  // of chat_template
  std::vector<std::int32_t> stop_ids;           // ascending
  std::optional<PictureTokens> picture_tokens;  // none: the model sees no pictures

  // The tokens of a text to be completed. What it spells stays text: it cannot forge a turn.
  std::vector<std::int32_t> text_prompt(std::string_view text) const;
  // The tokens of a conversation (an array of {"role", "content"}) up to where the assistant's answer begins. tools: an
  // array, or null. Throws Error{kUnsupported} without a template, {kInvalidArgument} for messages of another form.
  std::vector<std::int32_t> chat_prompt(const OrderedJson& messages,
                                        const OrderedJson& variables = OrderedJson::object(),
                                        const OrderedJson& tools = nullptr) const;
  // A conversation whose contents have parts {"type": "image"}, one for each picture, in order.
  PicturePrompt picture_prompt(const OrderedJson& messages, const Pictures& pictures,
                               const OrderedJson& variables = OrderedJson::object(),
                               const OrderedJson& tools = nullptr) const;
  // Puts pictures at the placeholders of a prompt. Throws Error when the model sees none, or there are not as many.
  PicturePrompt with_pictures(std::vector<std::int32_t> ids, const Pictures& pictures) const;
};

// path as Checkpoint::open takes it. Throws Error naming what is missing or wrong.
OpenModel open_model(const std::string& path);

}  // namespace tandem
