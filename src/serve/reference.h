// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The tables of the server (routes, fields, settings, metrics) as the second half of docs/serving.md. A test compares,
// so the page and the program say the same.
#pragma once

#include <string>

namespace tandem {

// Stands before the generated half; what is above it in the page is written by hand.
inline constexpr const char* kReferenceMark = "<!-- From here on made by: tandem serve --reference -->\n";

// Markdown, from the mark on.
std::string serving_reference();

}  // namespace tandem
