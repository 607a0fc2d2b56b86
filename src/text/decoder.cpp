// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "text/decoder.h"

#include <array>
#include <cctype>
#include <cstdint>
#include <optional>

#include "base/error.h"
#include "base/format.h"

namespace tandem {

namespace {

// Byte-level vocabularies write every byte as a visible character: printable Latin-1 bytes as themselves, the other 68
// as U+0100 and on, in order. Index: code point; value: byte, or -1.
constexpr std::array<std::int16_t, 256 + 68> byte_of_code_points() {
  std::array<std::int16_t, 256 + 68> bytes{};
  bytes.fill(-1);
  int next = 256;
  for (int byte = 0; byte < 256; ++byte) {
    const bool visible = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    bytes[visible ? byte : next++] = static_cast<std::int16_t>(byte);
  }
  return bytes;
}
constexpr auto kByteOf = byte_of_code_points();

// The bytes that a byte-level token stands for; a token with any other character stands for itself.
std::string byte_level_bytes(std::string_view token) {
  std::string bytes;
  for (std::size_t i = 0; i < token.size();) {
    const auto lead = static_cast<std::uint8_t>(token[i]);
    std::size_t code = lead, length = 1;
    if (lead >= 0x80) {  // all code points of the alphabet have at most two bytes
      if ((lead & 0xe0) != 0xc0 || i + 1 >= token.size()) return std::string(token);
      code = (lead & 0x1fu) << 6 | (static_cast<std::uint8_t>(token[i + 1]) & 0x3fu);
      length = 2;
    }
    if (code >= kByteOf.size() || kByteOf[code] < 0) return std::string(token);
    bytes += static_cast<char>(kByteOf[code]);
    i += length;
  }
  return bytes;
}

// The byte of a token such as <0xE4>.
std::optional<char> fallback_byte(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return std::nullopt;
  const auto digit = [](char c) {
    return std::isdigit(static_cast<unsigned char>(c)) ? c - '0' : std::tolower(c) - 'a' + 10;
  };
  const bool sign = token[3] == '+';  // the reference reads "+5" as a number, too
  if ((!sign && !std::isxdigit(static_cast<unsigned char>(token[3]))) ||
      !std::isxdigit(static_cast<unsigned char>(token[4])))
    return std::nullopt;
  return static_cast<char>((sign ? 0 : digit(token[3])) * 16 + digit(token[4]));
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  for (std::size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
    text.replace(at, from.size(), to);
  return text;
}

[[noreturn]] void unsupported(const std::string& what) {
  throw Error(ErrorCode::kUnsupported, format("tokenizer.json: decoder {} is not supported", what));
}

std::string text_field(const Json& part, const char* field) {
  const Json value = part.value(field, Json());
  if (!value.is_string())
    throw Error(ErrorCode::kInvalidData, format("tokenizer.json: decoder: {} is not a text", field));
  return value;
}

}  // namespace

Decoder Decoder::from_json(const Json& decoder) {
  Decoder result;
  if (!decoder.is_object()) unsupported("null");
  if (decoder.value("type", Json()) == "Sequence") {
    for (const Json& part : decoder.value("decoders", Json::array())) result.add(part);
  } else {
    result.add(decoder);
  }
  return result;
}

void Decoder::add(const Json& part) {
  const std::string type = text_field(part, "type");
  const bool first = !byte_level_ && !byte_fallback_ && !fused_ && replacements_.empty() && first_token_mark_.empty();
  if (type == "ByteLevel" && first) {
    byte_level_ = fused_ = true;
  } else if (type == "Fuse") {
    fused_ = true;
  } else if (type == "Metaspace" && first) {
    const std::string mark = text_field(part, "replacement");
    replacements_.emplace_back(mark, " ");
    if (mark.empty()) unsupported("Metaspace without a replacement");
    if (part.value("prepend_scheme", Json("always")) != "never") first_token_mark_ = mark;
  } else if (type == "Replace" && !byte_level_ && !byte_fallback_ && !fused_) {
    const Json pattern = part.value("pattern", Json());
    if (!pattern.is_object() || !pattern.value("String", Json()).is_string() || pattern["String"] == "")
      unsupported("Replace by a regular expression");
    replacements_.emplace_back(pattern["String"], text_field(part, "content"));
  } else if (type == "ByteFallback" && !byte_level_ && !fused_) {
    byte_fallback_ = true;
  } else if (type == "Strip" && fused_ && !byte_level_ && strip_.empty()) {
    if (part.value("stop", Json(0)) != 0) unsupported("Strip at the end");
    const Json start = part.value("start", Json());
    if (!start.is_number_unsigned())
      throw Error(ErrorCode::kInvalidData, "tokenizer.json: decoder: Strip without start");
    strip_ = text_field(part, "content");
    strip_count_ = start;
  } else {
    unsupported(format("{} at this place", type));
  }
}

Decoder::Piece Decoder::piece(std::string_view token) const {
  if (byte_level_) return {.bytes = byte_level_bytes(token), .is_byte = false};
  std::string text(token);
  for (const auto& [from, to] : replacements_) text = replaced(std::move(text), from, to);
  if (byte_fallback_)
    if (const auto byte = fallback_byte(text)) return {.bytes = std::string(1, *byte), .is_byte = true};
  return {.bytes = std::move(text), .is_byte = false};
}

}  // namespace tandem
