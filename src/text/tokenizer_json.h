// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What a tokenizer.json must hold before the bytes go on to the Rust library: known parts only, ids in range, nothing
// that draws random numbers or grows text without bound. Not a tokenizer; it reads and repairs the document.
#pragma once

#include <string_view>

#include "base/json.h"

namespace tandem {

// Largest text that is encoded at once, and largest id + 1.
inline constexpr std::size_t kTextBytesMax = 64u << 20;
inline constexpr std::int64_t kTokenCountMax = 1 << 22;

// Parses and checks a tokenizer.json; added tokens that only the tokenizer_config names are added. Padding and
// truncation are taken out: the engine does its own. Throws Error.
Json checked_tokenizer_json(std::string_view tokenizer_json, const Json& config);

}  // namespace tandem
