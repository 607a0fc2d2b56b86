// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Any bytes as a schema, a regular expression or a Lark grammar, and a walk through what comes of it: a grammar or an
// Error, soon and in bounded memory; a walk along tokens that are allowed never fails but by a limit.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "text/grammar.h"

namespace {

// A token for every byte, and one that ends answers.
const tandem::Tokenizer& tokenizer() {
  static const tandem::Tokenizer made = [] {
    tandem::Json vocab{{"<unk>", 0}, {"</s>", 1}};
    for (int byte = 0; byte < 256; ++byte) {
      constexpr const char* kDigits = "0123456789ABCDEF";
      vocab[std::string("<0x") + kDigits[byte / 16] + kDigits[byte % 16] + ">"] = byte + 2;
    }
    for (char c = ' '; c < 0x7f; ++c) vocab[std::string(1, c)] = 300 + c;
    const tandem::Json document{
        {"version", "1.0"},
        {"added_tokens",
         {{{"id", 1},
           {"content", "</s>"},
           {"special", true},
           {"single_word", false},
           {"lstrip", false},
           {"rstrip", false},
           {"normalized", false}}}},
        {"normalizer", nullptr},
        {"pre_tokenizer", nullptr},
        {"post_processor", nullptr},
        {"decoder", {{"type", "Sequence"}, {"decoders", {{{"type", "ByteFallback"}}, {{"type", "Fuse"}}}}}},
        {"model",
         {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", "<unk>"},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", false},
          {"byte_fallback", true},
          {"ignore_merges", false},
          {"vocab", vocab},
          {"merges", tandem::Json::array()}}}};
    return tandem::Tokenizer::from_json(document.dump());
  }();
  return made;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const std::int32_t kStop = 1;
  static const tandem::GrammarVocabulary vocabulary(tokenizer(), std::span(&kStop, 1));
  if (size < 2) return 0;
  const std::string_view source(reinterpret_cast<const char*>(data) + 2, size - 2);
  try {
    tandem::Grammar grammar = vocabulary.compile(static_cast<tandem::GrammarKind>(data[0] % 3), source);
    std::vector<std::uint32_t> words(tokenizer().vocab_size() / 32 + 1);
    std::size_t choice = data[1];
    for (int step = 0; step < 16 && !grammar.complete(); ++step) {
      if (!grammar.allowed({}, words)) return 0;  // a limit
      std::vector<std::int32_t> ids;
      for (std::size_t id = 0; id < tokenizer().vocab_size(); ++id)
        if (id != static_cast<std::size_t>(kStop) && (words[id / 32] >> (id % 32) & 1) != 0)
          ids.push_back(static_cast<std::int32_t>(id));
      if (ids.empty()) return 0;
      choice = choice * 31 + 7;
      if (!grammar.accept(ids[choice % ids.size()])) return 0;
    }
  } catch (const tandem::Error&) {
  }
  return 0;
}
