// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Text to token ids and back, as a tokenizer.json (or a GGUF vocabulary, gguf_vocabulary.h) says. The work is done by
// the Rust library; this class owns its handle, the table of tokens, and what the tokenizer_config adds.
//
// Text that a user typed is encoded with parse_special = false: whatever it spells stays text, so it cannot forge a
// turn.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/decoder.h"

struct TandemTokenizer;

namespace tandem {

struct EncodeOptions {
  bool add_special_tokens = false;  // the model's own frame, usually a bos token in front
  bool parse_special = false;       // text that spells a control token becomes that token
};

// Const methods may be called from many threads at once.
class Tokenizer {
 public:
  // Throws Error. tokenizer_config_json may be empty.
  static Tokenizer from_json(std::string_view tokenizer_json, std::string_view tokenizer_config_json = {});

  // text must be UTF-8 of at most kTextBytesMax bytes; throws Error.
  std::vector<std::int32_t> encode(std::string_view text, const EncodeOptions& options = {}) const;
  // Ids without a token are passed over. The result is valid UTF-8.
  std::string decode(std::span<const std::int32_t> ids, bool skip_special = false) const;

  std::size_t vocab_size() const { return tokens_.size(); }  // largest id + 1
  bool has_token(std::int32_t id) const { return in_range(id) && tokens_[id].present; }
  bool is_special(std::int32_t id) const { return in_range(id) && tokens_[id].special; }
  // Special tokens and markers such as <think>: what parse_special = false never yields.
  bool is_control(std::int32_t id) const { return in_range(id) && tokens_[id].control; }
  // The token as it is written in the vocabulary; empty when there is none.
  const std::string& token(std::int32_t id) const { return in_range(id) ? tokens_[id].text : kNone; }
  // What the token adds to a text: bytes, maybe a part of a character.
  const std::string& token_bytes(std::int32_t id) const { return in_range(id) ? tokens_[id].piece.bytes : kNone; }
  std::optional<std::int32_t> find_token(std::string_view token) const;

  std::optional<std::int32_t> bos_id() const { return bos_id_; }
  std::optional<std::int32_t> eos_id() const { return eos_id_; }
  // Empty when there is none.
  const std::string& bos_token() const { return bos_id_ ? token(*bos_id_) : kNone; }
  const std::string& eos_token() const { return eos_id_ ? token(*eos_id_) : kNone; }
  const std::string& chat_template() const { return chat_template_; }

  const Decoder& decoder() const { return decoder_; }
  const Decoder::Piece& piece(std::int32_t id) const { return in_range(id) ? tokens_[id].piece : kNoPiece; }

 private:
  struct Token {
    bool present = false, special = false, control = false;
    std::string text;
    Decoder::Piece piece;
  };
  struct Free {
    void operator()(TandemTokenizer* handle) const;
  };

  Tokenizer() = default;
  void read_table();
  bool in_range(std::int32_t id) const { return id >= 0 && static_cast<std::size_t>(id) < tokens_.size(); }

  static const std::string kNone;
  static const Decoder::Piece kNoPiece;

  std::unique_ptr<TandemTokenizer, Free> handle_;
  Decoder decoder_;
  std::vector<Token> tokens_;
  std::unordered_map<std::string_view, std::int32_t> ids_;  // views into tokens_
  std::optional<std::int32_t> bos_id_, eos_id_;
  std::string chat_template_;
};

}  // namespace tandem
