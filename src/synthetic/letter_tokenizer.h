// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A byte-level BPE tokenizer with as many tokens as a model's vocabulary has: the 256 bytes, then every run of letters,
// short ones first, some with a space before them. It encodes any text, and whatever a model of random weights says
// decodes to words of letters.
#pragma once

#include <string>

#include "base/json.h"

namespace tandem {

struct TokenizerFiles {
  std::string tokenizer;          // tokenizer.json
  std::string tokenizer_config;   // tokenizer_config.json, with a template for conversations
  std::string generation_config;  // generation_config.json
};

// Special tokens have the ids that config (of a model, see read_config) names. Throws Error{kInvalidArgument} for a
// vocabulary without room for the bytes, or larger than there are runs of letters.
TokenizerFiles make_tokenizer_files(const OrderedJson& config);

}  // namespace tandem
