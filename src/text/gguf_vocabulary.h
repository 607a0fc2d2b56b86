// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The vocabulary that a GGUF file carries, and the tokenizer it makes. Plain data: reading the file is the business of
// src/checkpoint. The vocabulary is written as a tokenizer.json in memory, so that there is one tokenizer, not two.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "text/tokenizer.h"

namespace tandem {

// Fields as in tokenizer.ggml.*.
struct GgufVocabulary {
  std::string model;                      // "gpt2": byte-level BPE
  std::string pre;                        // how text is cut into words: smollm, llama-bpe, qwen2, gpt-2, default
  std::vector<std::string> tokens;        // by id
  std::vector<std::int32_t> token_types;  // 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte; or empty
  std::vector<float> scores;              // of model "llama"; unused by "gpt2"
  std::vector<std::string> merges;        // "left right"
  bool add_bos = false;
  bool add_space_prefix = false;
  std::optional<std::int32_t> bos_id, eos_id, unk_id, pad_id;
  std::string chat_template;
};

// Throws Error: kUnsupported for another model or pre, kInvalidData for parts that do not fit together.
Tokenizer make_tokenizer(const GgufVocabulary& vocabulary);

}  // namespace tandem
