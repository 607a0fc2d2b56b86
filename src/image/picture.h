// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Pictures from outside: JPEG, PNG and WebP to 8-bit RGB, over the Rust crate in rust/image. The bytes say which format
// it is; sizes are read from the header and refused before memory for pixels is taken.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace tandem {

struct PictureSize {
  std::int32_t width = 0, height = 0;

  bool operator==(const PictureSize&) const = default;
};

struct Picture {
  PictureSize size;
  std::vector<std::uint8_t> rgb;  // [height, width, 3]
};

struct PictureLimits {
  std::size_t bytes_max = 20u << 20;  // of the file
  std::int32_t side_min = 2;          // a single dot shows nothing: such pictures count visits
  std::int32_t side_max = 16384;
  std::int64_t pixels_max = 40'000'000;
};

// Decodes one picture, upright; transparent pixels are laid over white. Throws Error with the reason: not a picture of
// a supported format, cut short, animated, in CMYK, larger than a limit.
Picture decode_picture(std::string_view bytes, const PictureLimits& limits = {});

// Names bytes: equal names, equal bytes (SHA-256).
using ContentDigest = std::array<std::uint8_t, 32>;
ContentDigest content_digest(std::string_view bytes);

// The picture at another size, as PIL's bilinear filter makes it: widened when shrinking, rounded to bytes.
Picture resize_picture(const Picture& picture, PictureSize size);

}  // namespace tandem
