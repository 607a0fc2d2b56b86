// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "synthetic/letter_tokenizer.h"

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "base/error.h"
#include "base/format.h"
#include "synthetic/resize.h"

namespace tandem {

namespace {

constexpr int kLetters = 26, kBytes = 256;
constexpr int kRunMax = 4;  // characters of the longest run; the first may be a space
constexpr std::int64_t kRuns = (kLetters + 1) * (kLetters + kLetters * kLetters + kLetters * kLetters * kLetters);

constexpr const char* kBegin = "<|begin|>";
constexpr std::string_view kTemplateBegin =
    "{%- for message in messages %}{{- '<|im_start|>' + message['role'] + '\\n' }}";
constexpr std::string_view kTemplateText = "{{- message['content'] }}";
constexpr std::string_view kTemplateParts =
    "{%- if message['content'] is string %}{{- message['content'] }}{%- else %}{%- for part in message['content'] %}"
    "{{- '<im_patch>' if part['type'] == 'image' else part['text'] }}{%- endfor %}{%- endif %}";
constexpr std::string_view kTemplateEnd =
    "{{- '<|im_end|>\\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}";

// How byte-level vocabularies spell a byte: printable ones of Latin-1 as themselves, the others as what comes behind.
std::string spelling(int byte) {
  const auto is_printable = [](int b) { return (b >= 33 && b <= 126) || (b >= 161 && b != 173); };
  int code = byte;
  if (!is_printable(byte)) {
    code = 256;
    for (int b = 0; b < byte; ++b) code += is_printable(b) ? 0 : 1;
  }
  if (code < 128) return std::string(1, static_cast<char>(code));
  return {static_cast<char>(0xc0 | code >> 6), static_cast<char>(0x80 | (code & 0x3f))};
}

using Specials = std::map<std::int64_t, std::string>;  // by id

// One id or a list of them, of the whole file or of its text part. Throws Error for what is no token.
std::vector<std::int64_t> ids_of(const OrderedJson& whole, const OrderedJson& text, const char* key,
                                 std::int64_t vocab) {
  OrderedJson value = whole.value(key, OrderedJson());
  if (value.is_null()) value = text.value(key, OrderedJson());
  if (value.is_null()) return {};
  std::vector<std::int64_t> ids;
  for (const OrderedJson& id : value.is_array() ? value : OrderedJson::array({value})) {
    if (!id.is_number_integer() || id.get<std::int64_t>() < 0 || id.get<std::int64_t>() >= vocab)
      throw Error(ErrorCode::kInvalidData,
                  format("config.json: {} is {}, expected token ids in 0 … {}", key, id.dump(), vocab - 1));
    ids.push_back(id.get<std::int64_t>());
  }
  return ids;
}

// The tokens that a model's files name, and those of conversations and pictures where nothing else is.
class SpecialTokens {
 public:
  SpecialTokens(const OrderedJson& whole, const OrderedJson& text, std::int64_t vocab) : vocab_(vocab) {
    if (const auto ids = ids_of(whole, text, "bos_token_id", vocab); !ids.empty()) {
      bos_id_ = ids.front();
      tokens_[ids.front()] = kBegin;
    }
    eos_ids_ = ids_of(whole, text, "eos_token_id", vocab);
    for (const std::int64_t id : eos_ids_)
      tokens_.emplace(id, id == eos_ids_.front() ? "<|im_end|>" : format("<|end_{}|>", id));
    if (whole.contains("vision_config")) {
      tokens_[whole.value("image_token_id", std::int64_t{128001})] = whole.value("im_patch_token", "<im_patch>");
      for (const char* token : {"<im_start>", "<im_end>", "<patch_start>", "<patch_end>", "<patch_newline>"})
        add(token);
    }
    add("<|im_start|>");
    if (eos_ids_.empty()) add("<|im_end|>");
  }

  const Specials& tokens() const { return tokens_; }
  std::optional<std::int64_t> bos_id() const { return bos_id_; }
  const std::vector<std::int64_t>& eos_ids() const { return eos_ids_; }

 private:
  void add(const char* token) {
    do {
      --vocab_;
    } while (tokens_.contains(vocab_));
    tokens_[vocab_] = token;
  }

  std::int64_t vocab_;  // ids from here on are taken
  Specials tokens_;
  std::optional<std::int64_t> bos_id_;
  std::vector<std::int64_t> eos_ids_;
};

// Ordinary tokens with ids that no special one has, ascending: the BPE model's vocabulary, and its merges.
class Vocabulary {
 public:
  Vocabulary(std::int64_t size, const Specials& specials) : size_(size), specials_(specials) {
    for (int byte = 0; byte < kBytes; ++byte) add(spelling(byte));
    std::vector<std::string> shorter;
    for (char c = 'a'; c <= 'z'; ++c) shorter.emplace_back(1, c);
    shorter.push_back(spelling(' '));
    for (int length = 2; length <= kRunMax && !shorter.empty(); ++length) shorter = add_runs(shorter);
  }

  const std::string& vocab() const { return vocab_; }    // "token":id,…
  const std::string& merges() const { return merges_; }  // "a b",…

 private:
  // Each run with each letter behind it, as long as there is room.
  std::vector<std::string> add_runs(const std::vector<std::string>& shorter) {
    std::vector<std::string> runs;
    for (const std::string& run : shorter) {
      for (char c = 'a'; c <= 'z'; ++c) {
        if (!add(run + c)) return {};
        merges_ += format("{}\"{} {}\"", merges_.empty() ? "" : ",", run, c);
        runs.push_back(run + c);
      }
    }
    return runs;
  }

  // Special tokens are in the vocabulary too: readers take added ones only there or behind it.
  bool add(const std::string& token) {
    for (auto special = specials_.find(next_); special != specials_.end(); special = specials_.find(next_))
      place(special->second);
    if (next_ >= size_) return false;
    place(token);
    return true;
  }
  void place(const std::string& token) {
    vocab_ += format("{}{}:{}", vocab_.empty() ? "" : ",", to_line(Json(token)), next_++);
  }

  std::int64_t size_, next_ = 0;
  const Specials& specials_;
  std::string vocab_, merges_;
};

std::string tokenizer_json(const Vocabulary& vocabulary, const Specials& specials) {
  std::string added;
  for (const auto& [id, token] : specials)
    added += format(
        R"({}{{"id":{},"content":{},"single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}})",
        added.empty() ? "" : ",", id, to_line(Json(token)));
  return format(
      R"({{"version":"1.0","truncation":null,"padding":null,"added_tokens":[{}],"normalizer":null,)"
      R"("pre_tokenizer":{{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true}},)"
      R"("post_processor":null,)"
      R"("decoder":{{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true}},)"
      R"("model":{{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":null,)"
      R"("end_of_word_suffix":null,"fuse_unk":false,"byte_fallback":false,"ignore_merges":false,)"
      R"("vocab":{{{}}},"merges":[{}]}}}})",
      added, vocabulary.vocab(), vocabulary.merges());
}

std::string tokenizer_config_json(const SpecialTokens& specials, bool pictures, std::int64_t context) {
  OrderedJson decoder = OrderedJson::object();
  for (const auto& [id, token] : specials.tokens())
    decoder[format("{}", id)] = {{"content", token}, {"lstrip", false},      {"normalized", false},
                                 {"rstrip", false},  {"single_word", false}, {"special", true}};
  OrderedJson json;
  json["added_tokens_decoder"] = std::move(decoder);
  if (specials.bos_id()) json["bos_token"] = kBegin;
  json["eos_token"] = "<|im_end|>";
  json["clean_up_tokenization_spaces"] = false;
  json["model_max_length"] = context;
  json["tokenizer_class"] = "PreTrainedTokenizerFast";
  json["chat_template"] = format("{}{}{}", kTemplateBegin, pictures ? kTemplateParts : kTemplateText, kTemplateEnd);
  return json.dump(1) + "\n";
}

}  // namespace

TokenizerFiles make_tokenizer_files(const OrderedJson& config) {
  OrderedJson whole = config;
  const OrderedJson& text = text_part(whole);
  const auto vocab = text.at("vocab_size").get<std::int64_t>();
  const SpecialTokens specials(whole, text, vocab);
  const auto special_count = std::ssize(specials.tokens());
  if (vocab < kBytes + special_count || vocab > kBytes + kRuns + special_count)
    throw Error(ErrorCode::kInvalidArgument, format("a vocabulary of {} tokens has no tokenizer, {} … {} have", vocab,
                                                    kBytes + special_count, kBytes + kRuns + special_count));
  const Vocabulary vocabulary(vocab, specials.tokens());
  std::int64_t context = 65536;
  for (const char* key : {"max_position_embeddings", "max_position_embedding"})
    if (text.contains(key)) context = text.at(key).get<std::int64_t>();
  OrderedJson generation;
  if (specials.bos_id()) generation["bos_token_id"] = *specials.bos_id();
  if (!specials.eos_ids().empty()) generation["eos_token_id"] = specials.eos_ids();
  generation["do_sample"] = false;
  return {tokenizer_json(vocabulary, specials.tokens()),
          tokenizer_config_json(specials, whole.contains("vision_config"), context), generation.dump(1) + "\n"};
}

}  // namespace tandem
