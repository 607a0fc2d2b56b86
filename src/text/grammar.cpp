// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "text/grammar.h"

#include "base/format.h"
#include "text/border.h"
#include "text/json_schema.h"

namespace tandem {

namespace {

TandemGrammarKind native(GrammarKind kind) {
  switch (kind) {
    case GrammarKind::kJsonSchema:
      return TandemGrammarJsonSchema;
    case GrammarKind::kRegex:
      return TandemGrammarRegex;
    case GrammarKind::kLark:
      break;
  }
  return TandemGrammarLark;
}

Status status_of(TandemStatus status, const BorderBuffer& out) {
  if (status == TandemOk) return Status::ok();
  return {ErrorCode::kInvalidData, format("grammar: {}", out.view())};
}

}  // namespace

void Grammar::Free::operator()(TandemGrammar* handle) const {
  tandem_grammar_free(handle);
}

void GrammarVocabulary::Free::operator()(TandemVocabulary* handle) const {
  tandem_vocabulary_free(handle);
}

GrammarVocabulary::GrammarVocabulary(const Tokenizer& tokenizer, std::span<const std::int32_t> stop_ids) {
  std::string bytes;
  std::vector<std::uint32_t> lengths;
  lengths.reserve(tokenizer.vocab_size());
  for (std::size_t i = 0; i < tokenizer.vocab_size(); ++i) {
    const auto id = static_cast<std::int32_t>(i);
    const std::size_t before = bytes.size();
    if (tokenizer.is_control(id)) {
      bytes += '\xff';
      bytes += tokenizer.token(id);
    } else {
      bytes += tokenizer.token_bytes(id);
    }
    lengths.push_back(static_cast<std::uint32_t>(bytes.size() - before));
  }
  TandemVocabulary* handle = nullptr;
  BorderBuffer out;
  const auto* ends = reinterpret_cast<const std::uint32_t*>(stop_ids.data());
  require_ok(tandem_vocabulary_new(border_bytes(bytes), bytes.size(), lengths.data(), lengths.size(), ends,
                                   stop_ids.size(), &handle, out.out()),
             out, "vocabulary");
  handle_.reset(handle);
}

Grammar GrammarVocabulary::compile(GrammarKind kind, std::string_view source, const GrammarLimits& limits) const {
  TandemGrammar* handle = nullptr;
  BorderBuffer out;
  const TandemGrammarLimits native_limits{.bytes_max = static_cast<std::size_t>(limits.bytes_max),
                                          .depth_max = static_cast<std::size_t>(limits.depth_max),
                                          .ms_max = static_cast<std::uint64_t>(limits.ms_max)};
  require_ok(tandem_grammar_compile(handle_.get(), native(kind), border_bytes(source), source.size(), native_limits,
                                    &handle, out.out()),
             out, "grammar");
  Grammar grammar;
  grammar.handle_.reset(handle);
  grammar.source_ = std::make_shared<const GrammarSource>(GrammarSource{kind, std::string(source)});
  return grammar;
}

Grammar Grammar::clone() const {
  TandemGrammar* handle = nullptr;
  BorderBuffer out;
  require_ok(tandem_grammar_clone(handle_.get(), &handle, out.out()), out, "grammar");
  Grammar grammar;
  grammar.handle_.reset(handle);
  grammar.source_ = source_;
  grammar.complete_ = complete_;
  return grammar;
}

Status Grammar::allowed(std::span<const std::int32_t> after, std::span<std::uint32_t> words) {
  BorderBuffer out;
  const auto* ids = reinterpret_cast<const std::uint32_t*>(after.data());
  const TandemStatus status =
      tandem_grammar_mask(handle_.get(), ids, after.size(), words.data(), words.size(), out.out());
  return status_of(status, out);
}

Status Grammar::accept(std::int32_t token) {
  BorderBuffer out;
  const TandemStatus status =
      tandem_grammar_accept(handle_.get(), static_cast<std::uint32_t>(token), &complete_, out.out());
  return status_of(status, out);
}

std::string schema_source(OrderedJson schema) {
  schema = enforceable_schema(std::move(schema));
  if (schema.is_object() && !schema.contains("x-guidance"))
    schema["x-guidance"] = {{"whitespace_pattern", R"([ \t\n\r]{1,40})"}};  // a new line, deeply indented
  return to_line(schema);
}

std::string lark_text(std::string_view text) {
  return OrderedJson(text).dump();
}

std::string lark_choice(std::span<const std::string> texts) {
  std::string source = "start: ";
  for (std::size_t i = 0; i < texts.size(); ++i) source += (i == 0 ? "" : " | ") + lark_text(texts[i]);
  return source;
}

std::string lark_token(std::int32_t id) {
  return format("<[{}]>", id);
}

}  // namespace tandem
