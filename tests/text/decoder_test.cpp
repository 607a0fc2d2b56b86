// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Single pieces; how whole texts come out is held against recordings in tokenizer_test and detokenizer_test.
#include "text/decoder.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/json.h"

namespace tandem {
namespace {

Decoder decoder(const char* json) {
  return Decoder::from_json(parse_json(json, "decoder"));
}

TEST(Decoder, ByteLevelPiecesAreTheBytesThatTheirLettersStandFor) {
  const Decoder d = decoder(R"({"type": "ByteLevel"})");
  EXPECT_TRUE(d.is_byte_level());
  EXPECT_EQ(d.piece("\u0120word").bytes, " word");
  EXPECT_EQ(d.piece("\u010a").bytes, "\n");
  EXPECT_EQ(d.piece("\u00e2").bytes, "\xe2");  // a third of a character is a piece too
}

TEST(Decoder, ByteFallbackSpellsOneByte) {
  const Decoder d = decoder(R"({"type": "Sequence", "decoders": [
      {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
      {"type": "Strip", "content": " ", "start": 1, "stop": 0}]})");
  EXPECT_FALSE(d.is_byte_level());
  EXPECT_EQ(d.piece("▁word").bytes, " word");
  EXPECT_FALSE(d.piece("▁word").is_byte);
  EXPECT_EQ(d.piece("<0xE4>").bytes, "\xe4");
  EXPECT_TRUE(d.piece("<0xE4>").is_byte);
  EXPECT_EQ(d.piece("<0xZZ>").bytes, "<0xZZ>");
  EXPECT_EQ(d.strip(), " ");
  EXPECT_EQ(d.strip_count(), 1u);
}

TEST(Decoder, AnUnknownKindIsNamed) {
  try {
    decoder(R"({"type": "WordPiece"})");
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_NE(error.message().find("WordPiece"), std::string::npos) << error.message();
  }
}

}  // namespace
}  // namespace tandem
