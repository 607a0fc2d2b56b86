// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Recorded data of the text tests: tests/goldens/text.
#pragma once

#include <fstream>
#include <sstream>
#include <string>

#include "base/error.h"
#include "base/json.h"
#include "text/tokenizer.h"

namespace tandem {

inline std::string read_golden(const std::string& name) {
  std::ifstream file("tests/goldens/" + name, std::ios::binary);
  if (!file) throw Error(ErrorCode::kNotFound, "tests/goldens/" + name + ": cannot be read");
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// Key order shows in prompts, so the recorded messages keep it.
inline OrderedJson golden_json(const std::string& name) {
  return OrderedJson::parse(read_golden(name));
}

inline Tokenizer golden_tokenizer(const std::string& folder) {
  return Tokenizer::from_json(read_golden("text/" + folder + "/tokenizer.json"),
                              read_golden("text/" + folder + "/tokenizer_config.json"));
}

inline constexpr const char* kFamilies[] = {"llama3", "qwen", "deepseek", "step3"};

// A small tokenizer of the Llama 2 kind: marks for spaces, bytes for what the vocabulary lacks.
inline std::string byte_fallback_tokenizer_json() {
  Json vocab = {{"<unk>", 0}, {"<s>", 1}, {"</s>", 2}};
  for (int byte = 0; byte < 256; ++byte) {
    const char* digits = "0123456789ABCDEF";
    vocab[std::string("<0x") + digits[byte / 16] + digits[byte % 16] + ">"] = 3 + byte;
  }
  const char* pieces[] = {"\u2581", "a", "b", "c", "ab", "\u2581a", "\u00e9", "\u2581\u2581"};
  for (int i = 0; i < 8; ++i) vocab[pieces[i]] = 259 + i;
  const auto special = [](int id, const char* content) {
    return Json{{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
                {"rstrip", false}, {"normalized", false}, {"special", true}};
  };
  const Json mark = "\u2581", space = " ";
  const Json document = {
      {"version", "1.0"},
      {"added_tokens", Json::array({special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")})},
      {"normalizer",
       {{"type", "Sequence"},
        {"normalizers", Json::array({{{"type", "Prepend"}, {"prepend", mark}},
                                     {{"type", "Replace"}, {"pattern", {{"String", space}}}, {"content", mark}}})}}},
      {"pre_tokenizer", nullptr},
      {"post_processor", nullptr},
      {"decoder",
       {{"type", "Sequence"},
        {"decoders", Json::array({{{"type", "Replace"}, {"pattern", {{"String", mark}}}, {"content", space}},
                                  {{"type", "ByteFallback"}},
                                  {{"type", "Fuse"}},
                                  {{"type", "Strip"}, {"content", space}, {"start", 1}, {"stop", 0}}})}}},
      {"model",
       {{"type", "BPE"},
        {"unk_token", "<unk>"},
        {"fuse_unk", true},
        {"byte_fallback", true},
        {"vocab", vocab},
        {"merges", Json::array({Json::array({"a", "b"}), Json::array({mark, "a"}), Json::array({mark, mark})})}}}};
  return document.dump();
}

}  // namespace tandem
