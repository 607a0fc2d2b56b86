// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Any bytes as a tokenizer.json: an Error, or a tokenizer whose streamed text is what it decodes at once.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "base/error.h"
#include "text/detokenizer.h"
#include "text/tokenizer.h"

namespace {

void use(const tandem::Tokenizer& tokenizer) {
  const std::string text = "Hello  w\u00f6rld 123\n\U0001f600 <|im_end|> </s>";
  for (const bool parse_special : {false, true}) {
    std::vector<std::int32_t> ids;
    try {
      ids = tokenizer.encode(text, {.add_special_tokens = true, .parse_special = parse_special});
    } catch (const tandem::Error&) {  // a vocabulary may lack what the text needs
      continue;
    }
    tandem::Detokenizer detokenizer(tokenizer);
    std::string streamed;
    for (const std::int32_t id : ids) streamed += detokenizer.push(id);
    streamed += detokenizer.finish();
    TANDEM_CHECK(streamed == tokenizer.decode(ids), "streamed text differs from decoded text");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    use(tandem::Tokenizer::from_json({reinterpret_cast<const char*>(data), size}));
  } catch (const tandem::Error&) {
  }
  return 0;
}
