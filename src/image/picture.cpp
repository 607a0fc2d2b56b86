// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "image/picture.h"

#include <tandem_image.h>

#include <algorithm>

#include "base/check.h"
#include "base/error.h"
#include "base/format.h"
#include "text/border.h"

namespace tandem {

namespace {

TandemImageSize border_size(PictureSize size) {
  TANDEM_CHECK(size.width > 0 && size.height > 0, format("a picture of {}x{}", size.width, size.height));
  return {static_cast<std::uint32_t>(size.width), static_cast<std::uint32_t>(size.height)};
}

std::size_t rgb_bytes(PictureSize size) {
  return static_cast<std::size_t>(size.width) * static_cast<std::size_t>(size.height) * 3;
}

}  // namespace

Picture decode_picture(std::string_view bytes, const PictureLimits& limits) {
  if (bytes.size() > limits.bytes_max)
    throw Error(ErrorCode::kOutOfResources,
                format("picture: it has {} bytes, limit is {}", bytes.size(), limits.bytes_max));
  const TandemImageLimits border{static_cast<std::uint32_t>(limits.side_min),
                                 static_cast<std::uint32_t>(limits.side_max),
                                 static_cast<std::uint64_t>(limits.pixels_max)};
  TandemImageSize size{};
  BorderBuffer pixels;
  const TandemStatus status = tandem_image_decode(border_bytes(bytes), bytes.size(), &border, &size, pixels.out());
  require_ok(status, pixels, "picture");
  Picture picture{.size = {static_cast<std::int32_t>(size.width), static_cast<std::int32_t>(size.height)}};
  TANDEM_CHECK(pixels.view().size() == rgb_bytes(picture.size), "the decoder's pixels are not its size");
  picture.rgb.assign(pixels.view().begin(), pixels.view().end());
  return picture;
}

ContentDigest content_digest(std::string_view bytes) {
  BorderBuffer out;
  require_ok(tandem_image_digest(border_bytes(bytes), bytes.size(), out.out()), out, "digest");
  ContentDigest digest;
  TANDEM_CHECK(out.view().size() == digest.size(), "a digest of another length");
  std::ranges::copy(out.view(), digest.begin());
  return digest;
}

Picture resize_picture(const Picture& picture, PictureSize size) {
  if (size == picture.size) return picture;
  Picture resized{.size = size, .rgb = std::vector<std::uint8_t>(rgb_bytes(size))};
  const TandemImageSize from = border_size(picture.size), to = border_size(size);
  BorderBuffer failure;
  require_ok(tandem_image_resize_rgb8(picture.rgb.data(), &from, resized.rgb.data(), &to, failure.out()), failure,
             "resize");
  return resized;
}

}  // namespace tandem
