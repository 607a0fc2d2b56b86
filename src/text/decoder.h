// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// How tokens become text, as the "decoder" of a tokenizer.json says, cut into a part for one token (piece) and a part
// that needs its neighbours (detokenizer.h). Known decoders: byte level (GPT-2 and most since), Metaspace, and the
// sequence Replace, ByteFallback, Fuse, Strip of the Llama 2 and Gemma families.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"

namespace tandem {

class Decoder {
 public:
  struct Piece {
    std::string bytes;
    bool is_byte = false;  // one byte of a character that was spelled out (<0xE4>)
  };

  // Throws Error{kUnsupported} for a decoder that is not known.
  static Decoder from_json(const Json& decoder);

  // What a token adds, looked at alone.
  Piece piece(std::string_view token) const;

  bool is_byte_level() const { return byte_level_; }
  // Characters that are taken away from the beginning of the whole text: up to strip_count of strip.
  std::string_view strip() const { return strip_; }
  std::size_t strip_count() const { return strip_count_; }
  // The mark that is dropped, not a space, in the first token; empty for none.
  std::string_view first_token_mark() const { return first_token_mark_; }

 private:
  void add(const Json& part);

  bool byte_level_ = false;
  bool byte_fallback_ = false;
  bool fused_ = false;
  std::vector<std::pair<std::string, std::string>> replacements_;
  std::string strip_;
  std::size_t strip_count_ = 0;
  std::string first_token_mark_;
};

}  // namespace tandem
