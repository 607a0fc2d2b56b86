// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Text as it stands in an SVG, between tags or in an attribute.
#pragma once

#include <string>
#include <string_view>

namespace tandem {

// What means something to XML is written by name, and control characters, which it allows nowhere, are left out.
std::string svg_text(std::string_view text);

}  // namespace tandem
