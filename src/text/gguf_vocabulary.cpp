// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "text/gguf_vocabulary.h"

#include <string_view>

#include "base/error.h"
#include "base/format.h"
#include "base/json.h"
#include "text/tokenizer_json.h"

namespace tandem {

namespace {

constexpr std::int32_t kControl = 3, kUserDefined = 4;

Json split(const char* expression) {
  return {{"type", "Split"}, {"pattern", {{"Regex", expression}}}, {"behavior", "Isolated"}, {"invert", false}};
}

Json byte_level(bool use_regex) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", use_regex}};
}

Json sequence(Json parts) {
  return {{"type", "Sequence"}, {"pretokenizers", std::move(parts)}};
}

// Words as the families published them; digits is how many digits stay together.
Json contraction_words(const std::string& digits) {
  const std::string expression = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" + digits +
                                 "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
  return sequence({split(expression.c_str()), byte_level(false)});
}

// Fills in how text is cut before merging.
void set_pre_tokenizer(const std::string& pre, Json& document) {
  Json& words = document["pre_tokenizer"];
  if (pre == "smollm") {
    words = sequence({{{"type", "Digits"}, {"individual_digits", true}}, byte_level(true)});
  } else if (pre == "gpt-2") {
    words = byte_level(true);
  } else if (pre == "llama-bpe") {
    words = contraction_words("\\p{N}{1,3}");
    document["model"]["ignore_merges"] = true;
  } else if (pre == "qwen2") {
    words = contraction_words("\\p{N}");
    document["normalizer"] = {{"type", "NFC"}};
  } else if (pre == "default" || pre.empty()) {
    words = sequence({split("[\\p{P}\\$\\+<=>\\^~\\|]+"),
                      split("'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)"),
                      split("\\p{N}+"), split("[0-9][0-9][0-9]"), byte_level(false)});
  } else {
    throw Error(ErrorCode::kUnsupported, format("GGUF vocabulary: pre-tokenizer \"{}\"", pre));
  }
}

void check(const GgufVocabulary& vocabulary) {
  const auto reject = [](std::string message) { throw Error(ErrorCode::kInvalidData, "GGUF vocabulary: " + message); };
  if (vocabulary.model != "gpt2")
    throw Error(
        ErrorCode::kUnsupported,
        format("GGUF vocabulary: tokenizer model \"{}\", supported is \"gpt2\" (byte-level BPE)", vocabulary.model));
  if (vocabulary.add_space_prefix) throw Error(ErrorCode::kUnsupported, "GGUF vocabulary: add_space_prefix with BPE");
  const std::size_t count = vocabulary.tokens.size();
  if (count == 0 || count > static_cast<std::size_t>(kTokenCountMax))
    reject(format("{} tokens, limit is {}", count, kTokenCountMax));
  if (!vocabulary.token_types.empty() && vocabulary.token_types.size() != count)
    reject(format("{} token types for {} tokens", vocabulary.token_types.size(), count));
  for (const auto& id : {vocabulary.bos_id, vocabulary.eos_id, vocabulary.unk_id, vocabulary.pad_id})
    if (id && (*id < 0 || static_cast<std::size_t>(*id) >= count))
      reject(format("token id {} of {} tokens", *id, count));
  if (vocabulary.add_bos && !vocabulary.bos_id) reject("add_bos without a bos token");
}

Json vocab_of(const GgufVocabulary& vocabulary) {
  Json vocab = Json::object();
  for (std::size_t id = 0; id < vocabulary.tokens.size(); ++id)
    if (!vocab.emplace(vocabulary.tokens[id], id).second)
      throw Error(ErrorCode::kInvalidData, format("GGUF vocabulary: token {} is there twice", id));
  return vocab;
}

Json merges_of(const GgufVocabulary& vocabulary) {
  Json merges = Json::array();
  for (const std::string& merge : vocabulary.merges) {
    const std::size_t space = merge.find(' ', 1);
    if (merge.empty() || space == std::string::npos)
      throw Error(ErrorCode::kInvalidData, format("GGUF vocabulary: merge \"{}\" is not two tokens", merge));
    merges.push_back({merge.substr(0, space), merge.substr(space + 1)});
  }
  return merges;
}

Json added_tokens_of(const GgufVocabulary& vocabulary) {
  Json added = Json::array();
  for (std::size_t id = 0; id < vocabulary.token_types.size(); ++id) {
    const std::int32_t type = vocabulary.token_types[id];
    if (type == kControl || type == kUserDefined)
      added.push_back({{"id", id},
                       {"content", vocabulary.tokens[id]},
                       {"single_word", false},
                       {"lstrip", false},
                       {"rstrip", false},
                       {"normalized", false},
                       {"special", type == kControl}});
  }
  return added;
}

Json bos_in_front(const GgufVocabulary& vocabulary) {
  const std::string& bos = vocabulary.tokens[*vocabulary.bos_id];
  const Json token = {{"SpecialToken", {{"id", bos}, {"type_id", 0}}}};
  const Json text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  const Json second = {{"Sequence", {{"id", "B"}, {"type_id", 1}}}};
  return {{"type", "TemplateProcessing"},
          {"single", Json::array({token, text})},
          {"pair", Json::array({token, text, second})},
          {"special_tokens",
           {{bos, {{"id", bos}, {"ids", Json::array({*vocabulary.bos_id})}, {"tokens", Json::array({bos})}}}}}};
}

}  // namespace

Tokenizer make_tokenizer(const GgufVocabulary& vocabulary) {
  check(vocabulary);
  Json document = {{"version", "1.0"},
                   {"added_tokens", added_tokens_of(vocabulary)},
                   {"normalizer", nullptr},
                   {"post_processor", nullptr},
                   {"decoder", byte_level(true)},
                   {"model", {{"type", "BPE"}, {"vocab", vocab_of(vocabulary)}, {"merges", merges_of(vocabulary)}}}};
  set_pre_tokenizer(vocabulary.pre, document);
  if (vocabulary.add_bos) document["post_processor"] = bos_in_front(vocabulary);

  Json config = {{"chat_template", vocabulary.chat_template}};
  if (vocabulary.bos_id) config["bos_token"] = vocabulary.tokens[*vocabulary.bos_id];
  if (vocabulary.eos_id) config["eos_token"] = vocabulary.tokens[*vocabulary.eos_id];
  return Tokenizer::from_json(to_line(document), to_line(config));
}

}  // namespace tandem
