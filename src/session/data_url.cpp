// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "session/data_url.h"

#include <cstdint>

#include "base/error.h"
#include "base/format.h"

namespace tandem {

namespace {

constexpr std::string_view kScheme = "data:", kEncoding = ";base64";
constexpr std::size_t kHeadMax = 128;  // of what stands before the comma

[[noreturn]] void refuse(std::string why) {
  throw Error(ErrorCode::kInvalidArgument, std::move(why));
}

// -1: not of the alphabet.
int sextet(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  if (c == '+') return 62;
  if (c == '/') return 63;
  return -1;
}

std::string decode_base64(std::string_view text) {
  std::size_t padding = 0;
  while (padding < 2 && !text.empty() && text.back() == '=') text.remove_suffix(1), ++padding;
  if (text.size() % 4 == 1 || (padding > 0 && (text.size() + padding) % 4 != 0))
    refuse("data URL: the base64 text is cut short");
  std::string bytes;
  bytes.reserve(text.size() * 3 / 4);
  std::uint32_t bits = 0;
  int count = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const int value = sextet(text[i]);
    if (value < 0) refuse(format("data URL: character {} of its data is not base64", i + 1));
    bits = bits << 6 | static_cast<std::uint32_t>(value);
    count += 6;
    if (count < 8) continue;
    count -= 8;
    bytes += static_cast<char>(bits >> count & 0xff);
  }
  return bytes;
}

}  // namespace

bool is_data_url(std::string_view url) {
  return url.starts_with(kScheme);
}

std::string read_data_url(std::string_view url, std::size_t bytes_max) {
  if (!is_data_url(url)) refuse("not a data URL");
  const std::size_t comma = url.substr(0, kHeadMax).find(',');
  if (comma == std::string_view::npos || !url.substr(0, comma).ends_with(kEncoding))
    refuse("data URL: must be data:TYPE;base64,DATA");
  const std::string_view data = url.substr(comma + 1);
  const std::size_t bytes = (data.find_last_not_of('=') + 1) * 3 / 4;  // 0 where there is nothing else
  if (bytes > bytes_max) refuse(format("data URL: it has {} bytes, limit is {}", bytes, bytes_max));
  return decode_base64(data);
}

}  // namespace tandem
