// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// TOML (toml.io, 1.0) as the JSON it stands for. toml.cpp is the only place that includes toml++. Dates and times are
// no settings of ours and are refused; numbers have to be finite.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "base/json.h"

namespace tandem {

struct TomlLimits {
  std::size_t bytes_max = 1 << 20;
  int path_parts_max = 8;  // of one dotted key
  int depth_max = 64;      // of the document as a whole
};

// Parses text; what names the source in messages. Throws Error{kInvalidData}, with the line where there is one.
Json parse_toml(std::string_view text, const std::string& what, const TomlLimits& limits = {});

// The text as a TOML string, with its quotes.
std::string toml_quoted(std::string_view text);

}  // namespace tandem
