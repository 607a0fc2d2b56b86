// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Token ids to text as they come, for streaming. Emits whole characters only; everything it emitted, one after the
// other, is what Tokenizer::decode gives for all ids at once. Cost per token does not grow with the length of the text.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "text/tokenizer.h"

namespace tandem {

// One thread. The tokenizer must outlive it.
class Detokenizer {
 public:
  // shown: special tokens, ascending, that are told although the others are passed over.
  explicit Detokenizer(const Tokenizer& tokenizer, bool skip_special = false, std::vector<std::int32_t> shown = {})
      : tokenizer_(tokenizer),
        skip_special_(skip_special),
        shown_(std::move(shown)),
        strip_left_(tokenizer.decoder().strip_count()) {}

  // The text that is complete with this token; often empty inside a character.
  std::string push(std::int32_t id);
  // What was held back: a cut character becomes U+FFFD. Afterwards the next push begins a new text.
  std::string finish();

 private:
  std::string take_byte_run();
  std::string stripped(std::string text);

  const Tokenizer& tokenizer_;
  const bool skip_special_;
  const std::vector<std::int32_t> shown_;
  bool begun_ = false;      // a token has come that was not passed over
  std::size_t strip_left_;  // characters that may still be taken from the beginning
  // Byte level: the beginning of a character, under four bytes. Byte fallback: the run of byte tokens so far; only the
  // whole run says whether it is text or a row of U+FFFD.
  std::string held_;
};

}  // namespace tandem
