// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Bytes that travel inside a URL: data:image/png;base64,iVBORw0… (RFC 2397). Only base64 is taken; the media type is
// not believed, since the bytes say what they are.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace tandem {

bool is_data_url(std::string_view url);

// Throws Error{kInvalidArgument} with the reason: no such URL, not base64, more than bytes_max bytes (found out from
// the length, before any memory is taken).
std::string read_data_url(std::string_view url, std::size_t bytes_max);

}  // namespace tandem
