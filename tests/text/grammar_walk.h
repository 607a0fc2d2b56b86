// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Walks a text through a grammar token by token, asking each time whether the next one may come.
#pragma once

#include <vector>

#include "text/grammar.h"

namespace tandem {

inline bool is_allowed(std::span<const std::uint32_t> words, std::int32_t id) {
  return (words[static_cast<std::size_t>(id) / 32] >> (id % 32) & 1) != 0;
}

// Whether text, in the tokens that the tokenizer makes of it, is a whole answer by the grammar. Control tokens that it
// spells are meant.
inline bool follows(const Grammar& start, const Tokenizer& tokenizer, std::int32_t stop_id, std::string_view text) {
  Grammar grammar = start.clone();
  std::vector<std::uint32_t> words(tokenizer.vocab_size() / 32 + 1);
  for (const std::int32_t id : tokenizer.encode(text, {.parse_special = true}))
    if (!grammar.allowed({}, words) || !is_allowed(words, id) || !grammar.accept(id)) return false;
  return grammar.allowed({}, words) && is_allowed(words, stop_id);
}

}  // namespace tandem
