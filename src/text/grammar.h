// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Answers by a grammar: a JSON schema, a regular expression, a Lark grammar or a choice of texts becomes a state that
// says after every token which ones may come next. The Rust library compiles; sources come from outside and are bounded
// in size, depth and the work they may cause.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "text/tokenizer.h"

struct TandemVocabulary;
struct TandemGrammar;

namespace tandem {

enum class GrammarKind { kJsonSchema, kRegex, kLark };
// What a grammar is compiled from.
struct GrammarSource {
  GrammarKind kind = GrammarKind::kJsonSchema;
  std::string text;
  bool operator==(const GrammarSource&) const = default;
};

// What one grammar may be; the work of compiling it and that of each step have bounds of their own beside these.
struct GrammarLimits {
  std::int64_t bytes_max = 64 << 10;  // length of its source; 256 KiB at most
  std::int64_t depth_max = 64;        // brackets within brackets in it; 128 at most
  std::int64_t ms_max = 2000;         // time to compile it
};

// One answer's place in its grammar. One thread at a time.
class Grammar {
 public:
  // The same place again; neither knows of the other.
  Grammar clone() const;
  // Sets bit i of words where token i may come after those accepted and then after. The place stays.
  Status allowed(std::span<const std::int32_t> after, std::span<std::uint32_t> words);
  // Takes the next token.
  Status accept(std::int32_t token);
  bool complete() const { return complete_; }  // nothing may follow
  const GrammarSource& source() const { return *source_; }

 private:
  friend class GrammarVocabulary;
  struct Free {
    void operator()(TandemGrammar* handle) const;
  };
  std::unique_ptr<TandemGrammar, Free> handle_;
  std::shared_ptr<const GrammarSource> source_;  // shared by clones
  bool complete_ = false;
};

// A model's tokens as grammars see them. Made once for a model; its first grammar takes a moment longer. Any thread.
class GrammarVocabulary {
 public:
  // stop_ids: the tokens that may come where a grammar is satisfied, and end it.
  GrammarVocabulary(const Tokenizer& tokenizer, std::span<const std::int32_t> stop_ids);
  // Throws Error that says what is wrong with the source (kInvalidData, kOutOfResources), or that too many compile at
  // the moment (kUnavailable).
  Grammar compile(GrammarKind kind, std::string_view source, const GrammarLimits& limits = {}) const;

 private:
  struct Free {
    void operator()(TandemVocabulary* handle) const;
  };
  std::unique_ptr<TandemVocabulary, Free> handle_;
};

// The source of a schema. Between the parts of an answer there may be white space, but not for ever: a model that likes
// it would never end. A schema that says so itself ("x-guidance") is left as it is. Throws Error{kUnsupported} for what
// no grammar can enforce (json_schema.h).
std::string schema_source(OrderedJson schema);

// Lark for "one of these texts", for a text, and for a token by its id.
std::string lark_choice(std::span<const std::string> texts);
std::string lark_text(std::string_view text);
std::string lark_token(std::int32_t id);

}  // namespace tandem
