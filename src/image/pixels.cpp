// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "image/pixels.h"

#include <tandem_image.h>

#include <algorithm>
#include <array>

#include "base/check.h"
#include "text/border.h"

namespace tandem {

namespace {

// Of the pictures that the tower was trained on.
constexpr std::array<float, 3> kMean{0.48145466f, 0.4578275f, 0.40821073f};
constexpr std::array<float, 3> kDeviation{0.26862954f, 0.26130258f, 0.27577711f};

// A rectangle of a picture; what lies outside the picture is black.
Picture cut(const Picture& picture, CropCorner corner, PictureSize size) {
  Picture part{.size = size, .rgb = std::vector<std::uint8_t>(static_cast<std::size_t>(size.width) * size.height * 3)};
  const std::int32_t width = std::min(size.width, picture.size.width - corner.x);
  const std::int32_t height = std::min(size.height, picture.size.height - corner.y);
  for (std::int32_t y = 0; y < height; ++y) {
    const std::size_t from = (static_cast<std::size_t>(corner.y + y) * picture.size.width + corner.x) * 3;
    std::copy_n(picture.rgb.begin() + static_cast<std::ptrdiff_t>(from), width * 3,
                part.rgb.begin() + static_cast<std::ptrdiff_t>(y) * size.width * 3);
  }
  return part;
}

// To [0, 1], normalised, and only then to the square: the filter works on the values that the tower sees.
View view_of(const Picture& picture, std::int32_t side) {
  std::vector<float> values(picture.rgb.size());
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = (static_cast<float>(picture.rgb[i]) / 255.0f - kMean[i % 3]) / kDeviation[i % 3];
  if (picture.size == PictureSize{side, side}) return {side, std::move(values)};
  View view{side, std::vector<float>(static_cast<std::size_t>(side) * side * 3)};
  const TandemImageSize from{static_cast<std::uint32_t>(picture.size.width),
                             static_cast<std::uint32_t>(picture.size.height)};
  const TandemImageSize to{static_cast<std::uint32_t>(side), static_cast<std::uint32_t>(side)};
  BorderBuffer failure;
  require_ok(tandem_image_resize_rgb32f(values.data(), &from, view.rgb.data(), &to, failure.out()), failure, "resize");
  return view;
}

}  // namespace

PictureViews::PictureViews(const Picture& picture)
    : plan_(plan_crops(picture.size)),
      corners_(crop_corners(plan_)),
      shrunk_(resize_picture(cut(picture, {}, plan_.padded), plan_.shrunk)) {
  if (plan_.crops() > 0) snapped_ = resize_picture(shrunk_, plan_.snapped);
}

View PictureViews::crop(std::int32_t index) const {
  TANDEM_CHECK(index >= 0 && index < plan_.crops(), "a crop that the plan does not have");
  return view_of(cut(snapped_, corners_[static_cast<std::size_t>(index)], {plan_.window, plan_.window}), kCropSide);
}

View PictureViews::whole() const {
  return view_of(shrunk_, kWholeSide);
}

}  // namespace tandem
