// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "text/tokenizer.h"

#include <bit>
#include <cstring>

#include "base/error.h"
#include "base/format.h"
#include "text/border.h"
#include "text/tokenizer_json.h"

namespace tandem {

static_assert(std::endian::native == std::endian::little, "ids cross the border in little-endian order");
static_assert(TANDEM_TOKEN_ID_MAX == kTokenCountMax - 1);

const std::string Tokenizer::kNone;
const Decoder::Piece Tokenizer::kNoPiece;

namespace {

// "bos_token" is a string or an object with a content.
std::string token_name(const Json& config, const char* field) {
  const auto found = config.find(field);
  if (found == config.end()) return {};
  const Json& value = found->is_object() ? found->value("content", Json()) : *found;
  return value.is_string() ? value.get<std::string>() : std::string();
}

// "chat_template" is a source, or a list of named sources of which "default" counts.
std::string template_source(const Json& config) {
  const auto found = config.find("chat_template");
  if (found == config.end()) return {};
  if (found->is_string()) return *found;
  if (found->is_array())
    for (const Json& entry : *found)
      if (entry.is_object() && entry.value("name", Json()) == "default" && entry.value("template", Json()).is_string())
        return entry["template"];
  return {};
}

}  // namespace

void Tokenizer::Free::operator()(TandemTokenizer* handle) const {
  tandem_tokenizer_free(handle);
}

Tokenizer Tokenizer::from_json(std::string_view tokenizer_json, std::string_view tokenizer_config_json) {
  const Json config =
      tokenizer_config_json.empty() ? Json::object() : parse_json(tokenizer_config_json, "tokenizer_config.json");
  if (!config.is_object()) throw Error(ErrorCode::kInvalidData, "tokenizer_config.json: not an object");
  const Json document = checked_tokenizer_json(tokenizer_json, config);

  Tokenizer tokenizer;
  tokenizer.decoder_ = Decoder::from_json(document.value("decoder", Json()));
  const std::string bytes = to_line(document);
  TandemTokenizer* handle = nullptr;
  BorderBuffer out;
  require_ok(tandem_tokenizer_load(border_bytes(bytes), bytes.size(), &handle, out.out()), out, "tokenizer.json");
  tokenizer.handle_.reset(handle);
  tokenizer.read_table();
  if (const std::string bos = token_name(config, "bos_token"); !bos.empty())
    tokenizer.bos_id_ = tokenizer.find_token(bos);
  if (const std::string eos = token_name(config, "eos_token"); !eos.empty())
    tokenizer.eos_id_ = tokenizer.find_token(eos);
  tokenizer.chat_template_ = template_source(config);
  return tokenizer;
}

void Tokenizer::read_table() {
  BorderBuffer out;
  require_ok(tandem_tokenizer_table(handle_.get(), out.out()), out, "tokenizer.json");
  std::string_view rest = out.view();
  constexpr std::size_t kHeader = 5;  // flags, 32-bit length
  while (!rest.empty()) {
    TANDEM_CHECK(rest.size() >= kHeader, "token table is cut");
    std::uint32_t size;
    std::memcpy(&size, rest.data() + 1, sizeof size);
    TANDEM_CHECK(rest.size() - kHeader >= size, "token table is cut");
    const auto flags = static_cast<std::uint8_t>(rest[0]);
    Token token{.present = (flags & TANDEM_TOKEN_PRESENT) != 0,
                .special = (flags & TANDEM_TOKEN_SPECIAL) != 0,
                .control = (flags & TANDEM_TOKEN_CONTROL) != 0,
                .text = std::string(rest.substr(kHeader, size)),
                .piece = {}};
    if (token.present) token.piece = decoder_.piece(token.text);
    tokens_.push_back(std::move(token));
    rest.remove_prefix(kHeader + size);
  }
  ids_.reserve(tokens_.size());
  for (std::size_t id = 0; id < tokens_.size(); ++id)
    if (tokens_[id].present) ids_.emplace(tokens_[id].text, static_cast<std::int32_t>(id));
}

std::vector<std::int32_t> Tokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  if (text.size() > kTextBytesMax)
    throw Error(ErrorCode::kOutOfResources, format("text has {} bytes, limit is {}", text.size(), kTextBytesMax));
  const std::uint32_t flags = (options.add_special_tokens ? TANDEM_ENCODE_ADD_SPECIAL : 0) |
                              (options.parse_special ? TANDEM_ENCODE_PARSE_SPECIAL : 0);
  BorderBuffer out;
  require_ok(tandem_tokenizer_encode(handle_.get(), border_bytes(text), text.size(), flags, out.out()), out, "encode");
  std::vector<std::int32_t> ids(out.view().size() / sizeof(std::int32_t));
  if (!ids.empty()) std::memcpy(ids.data(), out.view().data(), ids.size() * sizeof ids[0]);
  return ids;
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids, bool skip_special) const {
  BorderBuffer out;
  const auto* values = reinterpret_cast<const std::uint32_t*>(ids.data());  // a negative id is one without a token
  require_ok(tandem_tokenizer_decode(handle_.get(), values, ids.size(), skip_special, out.out()), out, "decode");
  return std::string(out.view());
}

std::optional<std::int32_t> Tokenizer::find_token(std::string_view token) const {
  const auto found = ids_.find(token);
  if (found == ids_.end()) return std::nullopt;
  return found->second;
}

}  // namespace tandem
