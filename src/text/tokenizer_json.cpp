// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "text/tokenizer_json.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>

#include "base/error.h"
#include "base/format.h"

namespace tandem {

namespace {

constexpr int kPartsMax = 32;      // components of one kind
constexpr double kGrowthMax = 64;  // bytes out per byte in, over all normalizers

[[noreturn]] void reject(ErrorCode code, std::string message) {
  throw Error(code, "tokenizer.json: " + std::move(message));
}

// One kind of component: the field that holds it, the field in which a Sequence lists its parts, and the known types.
struct Kind {
  const char* field;
  const char* parts;
  std::set<std::string> types;
};

const Kind kKinds[] = {
    {"normalizer", "normalizers", {"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Strip", "Prepend", "Replace"}},
    {"pre_tokenizer",
     "pretokenizers",
     {"ByteLevel", "Digits", "Metaspace", "Punctuation", "Split", "Whitespace", "WhitespaceSplit"}},
    {"post_processor", "processors", {"ByteLevel", "TemplateProcessing"}},
    {"decoder", "decoders", {"ByteLevel", "ByteFallback", "Fuse", "Metaspace", "Replace", "Strip"}},
};

struct Walk {
  int parts = 0;
  double growth = 1;
};

void check_component(const Kind& kind, const Json& part, Walk& walk) {
  if (!part.is_object() || !part.contains("type") || !part["type"].is_string())
    reject(ErrorCode::kInvalidData, format("{}: not an object with a type", kind.field));
  if (++walk.parts > kPartsMax)
    reject(ErrorCode::kUnsupported, format("{}: more than {} parts", kind.field, kPartsMax));
  const std::string type = part["type"];
  if (type == "Sequence") {
    if (!part.contains(kind.parts) || !part[kind.parts].is_array())
      reject(ErrorCode::kInvalidData, format("{}: a Sequence without {}", kind.field, kind.parts));
    for (const Json& inner : part[kind.parts]) check_component(kind, inner, walk);
    return;
  }
  if (!kind.types.contains(type)) reject(ErrorCode::kUnsupported, format("{}: type {}", kind.field, type));
  if (type == "Replace" && part.contains("content") && part["content"].is_string())
    walk.growth *= std::max<double>(1, part["content"].get_ref<const std::string&>().size());
  if (walk.growth > kGrowthMax)
    reject(ErrorCode::kUnsupported, format("{}: text may grow more than {} times", kind.field, kGrowthMax));
}

std::int64_t checked_id(const Json& id, const std::string& token) {
  if (!id.is_number_integer() || id.get<std::int64_t>() < 0 || id.get<std::int64_t>() >= kTokenCountMax)
    reject(ErrorCode::kInvalidData,
           format("token \"{}\" has id {}, limit is {}", token, id.dump(), kTokenCountMax - 1));
  return id.get<std::int64_t>();
}

void check_model(const Json& model) {
  if (!model.is_object()) reject(ErrorCode::kInvalidData, "model is not an object");
  const std::string type = model.value("type", Json()).is_string() ? model["type"].get<std::string>() : "";
  if (type != "BPE" && type != "Unigram") reject(ErrorCode::kUnsupported, format("model type \"{}\"", type));
  const Json dropout = model.value("dropout", Json());
  if (!dropout.is_null() && dropout != 0) reject(ErrorCode::kUnsupported, "dropout: encoding must not be random");
  if (!model.contains("vocab")) reject(ErrorCode::kInvalidData, "model has no vocab");
  const Json& vocab = model["vocab"];
  if (type == "BPE" ? !vocab.is_object() : !vocab.is_array())
    reject(ErrorCode::kInvalidData, format("vocab of a {} model has the wrong type", type));
  if (vocab.size() > static_cast<std::size_t>(kTokenCountMax))
    reject(ErrorCode::kOutOfResources, format("{} tokens, limit is {}", vocab.size(), kTokenCountMax));
  if (type == "BPE")
    for (const auto& [token, id] : vocab.items()) checked_id(id, token);
}

// Added tokens by id: those of the document, then those that only the configuration names.
Json merged_added_tokens(const Json& document, const Json& config) {
  std::map<std::int64_t, Json> by_id;
  const Json listed = document.value("added_tokens", Json::array());
  if (!listed.is_array()) reject(ErrorCode::kInvalidData, "added_tokens is not a list");
  for (const Json& token : listed) {
    if (!token.is_object() || !token.value("content", Json()).is_string())
      reject(ErrorCode::kInvalidData, "an added token has no content");
    const std::int64_t id = checked_id(token.value("id", Json()), token["content"]);
    if (!by_id.emplace(id, token).second) reject(ErrorCode::kInvalidData, format("two added tokens have id {}", id));
  }
  const Json extra = config.value("added_tokens_decoder", Json::object());
  if (!extra.is_object()) reject(ErrorCode::kInvalidData, "added_tokens_decoder is not an object");
  for (const auto& [key, token] : extra.items()) {
    if (!token.is_object() || !token.value("content", Json()).is_string())
      reject(ErrorCode::kInvalidData, format("added_tokens_decoder: token {} has no content", key));
    if (key.empty() || key.size() > 7 || key.find_first_not_of("0123456789") != std::string::npos)
      reject(ErrorCode::kInvalidData, format("added_tokens_decoder: \"{}\" is not an id", key));
    Json added = {
        {"single_word", false}, {"lstrip", false}, {"rstrip", false}, {"normalized", true}, {"special", false}};
    added.update(token);
    added["id"] = std::stoi(key);
    checked_id(added["id"], added["content"]);
    by_id.emplace(std::stoi(key), std::move(added));
  }
  Json merged = Json::array();
  for (auto& [id, token] : by_id) merged.push_back(std::move(token));
  return merged;
}

}  // namespace

Json checked_tokenizer_json(std::string_view tokenizer_json, const Json& config) {
  Json document = parse_json(tokenizer_json, "tokenizer.json");
  if (!document.is_object()) reject(ErrorCode::kInvalidData, "not an object");
  for (const Kind& kind : kKinds) {
    Walk walk;
    const auto part = document.find(kind.field);
    if (part != document.end() && !part->is_null()) check_component(kind, *part, walk);
  }
  check_model(document.value("model", Json()));
  document["added_tokens"] = merged_added_tokens(document, config);
  document["truncation"] = nullptr;
  document["padding"] = nullptr;
  return document;
}

}  // namespace tandem
