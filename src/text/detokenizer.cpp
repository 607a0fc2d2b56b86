// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "text/detokenizer.h"

#include <algorithm>
#include <string_view>

namespace tandem {

namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";  // U+FFFD

enum class Utf8 { kValid, kCut, kInvalid };
struct Utf8Step {
  Utf8 kind;
  std::size_t size;  // bytes of the character, or of the longest beginning of one
};

// The first character of text, which is not empty. kCut: the text ends inside a character that is right so far.
Utf8Step first_character(std::string_view text) {
  const auto at = [&](std::size_t i) { return static_cast<std::uint8_t>(text[i]); };
  const std::uint8_t lead = at(0);
  if (lead < 0x80) return {Utf8::kValid, 1};
  if (lead < 0xc2 || lead > 0xf4) return {Utf8::kInvalid, 1};
  const std::size_t size = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  // The second byte's range excludes overlong forms, surrogates and code points above U+10FFFF.
  const std::uint8_t low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
  const std::uint8_t high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
  for (std::size_t i = 1; i < size; ++i) {
    if (i == text.size()) return {Utf8::kCut, i};
    if (at(i) < (i == 1 ? low : 0x80) || at(i) > (i == 1 ? high : 0xbf)) return {Utf8::kInvalid, i};
  }
  return {Utf8::kValid, size};
}

// Moves whole characters out of held; invalid bytes become U+FFFD.
std::string take_characters(std::string& held) {
  std::string text;
  std::string_view rest = held;
  while (!rest.empty()) {
    const Utf8Step step = first_character(rest);
    if (step.kind == Utf8::kCut) break;
    text += step.kind == Utf8::kValid ? rest.substr(0, step.size) : kReplacement;
    rest.remove_prefix(step.size);
  }
  held = std::string(rest);
  return text;
}

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const Utf8Step step = first_character(text);
    if (step.kind != Utf8::kValid) return false;
    text.remove_prefix(step.size);
  }
  return true;
}

std::string without(std::string text, std::string_view mark) {
  for (std::size_t at; (at = text.find(mark)) != std::string::npos;) text.erase(at, mark.size());
  return text;
}

}  // namespace

std::string Detokenizer::push(std::int32_t id) {
  if (!tokenizer_.has_token(id)) return {};
  if (skip_special_ && tokenizer_.is_special(id) && !std::ranges::binary_search(shown_, id)) return {};
  const Decoder& decoder = tokenizer_.decoder();
  const Decoder::Piece& piece = tokenizer_.piece(id);
  const bool first = !begun_;
  begun_ = true;
  if (decoder.is_byte_level()) {
    held_ += piece.bytes;
    return take_characters(held_);
  }
  if (piece.is_byte) {
    held_ += piece.bytes;
    return {};
  }
  if (first && !decoder.first_token_mark().empty()) return without(tokenizer_.token(id), decoder.first_token_mark());
  return stripped(take_byte_run() + piece.bytes);
}

std::string Detokenizer::finish() {
  std::string text;
  if (tokenizer_.decoder().is_byte_level()) {
    text = take_characters(held_);
    if (!held_.empty()) text += kReplacement;  // one, as for any cut character
  } else {
    text = stripped(take_byte_run());
  }
  held_.clear();
  begun_ = false;
  strip_left_ = tokenizer_.decoder().strip_count();
  return text;
}

std::string Detokenizer::take_byte_run() {
  std::string run = std::move(held_);
  held_.clear();
  if (is_utf8(run)) return run;
  std::string marks;
  for (std::size_t i = 0; i < run.size(); ++i) marks += kReplacement;
  return marks;
}

std::string Detokenizer::stripped(std::string text) {
  const std::string_view strip = tokenizer_.decoder().strip();
  std::size_t begin = 0;
  while (strip_left_ > 0 && begin < text.size()) {
    if (std::string_view(text).substr(begin, strip.size()) != strip) {
      strip_left_ = 0;
    } else {
      begin += strip.size();
      --strip_left_;
    }
  }
  return text.substr(begin);
}

}  // namespace tandem
