// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The beginning of a PNG of any size, without pixels: sizes are looked at before anything else is.
#pragma once

#include <cstdint>
#include <string>

namespace tandem {

inline std::string png_header(std::uint32_t width, std::uint32_t height) {
  const auto big_endian = [](std::uint32_t value) {
    return std::string{static_cast<char>(value >> 24), static_cast<char>(value >> 16), static_cast<char>(value >> 8),
                       static_cast<char>(value)};
  };
  std::string header = "IHDR" + big_endian(width) + big_endian(height) + std::string("\x08\x02\x00\x00\x00", 5);
  std::uint32_t crc = 0xffffffffu;
  for (const char c : header) {
    crc ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (crc & 1 ? 0xedb88320u : 0u);
  }
  return "\x89PNG\r\n\x1a\n" + big_endian(13) + header + big_endian(~crc) + big_endian(0) + "IDAT" +
         big_endian(0x35af061eu);
}

}  // namespace tandem
