// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "image/crop_plan.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "base/error.h"
#include "base/format.h"

namespace tandem {

namespace {

constexpr std::int32_t kSideMax = 3024;  // of a picture that is not shrunk
constexpr std::int32_t kThinSide = 32;   // a shorter side below this …
constexpr double kThinRatio = 4;         // … of a shape beyond this is extended to a square
constexpr double kLongRatio = 1.5;       // a picture within kWholeSide is cropped when it is longer than this
constexpr double kWindowRatio = 4;       // beyond this the window is no larger than the shorter side
constexpr double kSnapUp = 0.2;          // of a window; less than this beyond a whole number is squeezed away

PictureSize padded(PictureSize size) {
  const double ratio = static_cast<double>(size.width) / size.height;
  if (std::min(size.width, size.height) >= kThinSide || (ratio <= kThinRatio && ratio >= 1 / kThinRatio)) return size;
  const std::int32_t side = std::max(size.width, size.height);
  return {side, side};
}

PictureSize shrunk(PictureSize size) {
  const std::int32_t longest = std::max(size.width, size.height);
  if (longest <= kSideMax) return size;
  const double factor = static_cast<double>(kSideMax) / longest;
  const auto scaled = [&](std::int32_t side) { return std::max(1, static_cast<std::int32_t>(side * factor)); };
  return {scaled(size.width), scaled(size.height)};
}

std::int32_t window_of(PictureSize size) {
  const std::int32_t longer = std::max(size.width, size.height), shorter = std::min(size.width, size.height);
  const double ratio = static_cast<double>(longer) / shorter;
  if (longer <= kWholeSide) return ratio > kLongRatio ? shorter : 0;
  return ratio > kWindowRatio ? std::min(shorter, kCropSide) : kCropSide;
}

std::int32_t snapped(std::int32_t side, std::int32_t window) {
  const double windows = static_cast<double>(side) / window;
  if (windows < 1) return side;
  const double whole = std::floor(windows);
  return (static_cast<std::int32_t>(whole) + (windows - whole > kSnapUp ? 1 : 0)) * window;
}

std::int32_t steps(std::int32_t side, std::int32_t window) {
  return side <= window ? 1 : (side - window + window - 1) / window + 1;
}

}  // namespace

CropPlan plan_crops(PictureSize size) {
  TANDEM_CHECK(size.width > 0 && size.height > 0, format("a picture of {}x{}", size.width, size.height));
  CropPlan plan{.size = size, .padded = padded(size)};
  plan.shrunk = shrunk(plan.padded);
  plan.window = window_of(plan.shrunk);
  if (plan.window == 0) return plan;
  plan.snapped = {snapped(plan.shrunk.width, plan.window), snapped(plan.shrunk.height, plan.window)};
  plan.columns = steps(plan.snapped.width, plan.window);
  plan.rows = steps(plan.snapped.height, plan.window);
  return plan;
}

void check_crops(const CropPlan& plan, const CropLimits& limits) {
  const PictureSize size = plan.size;
  if (static_cast<std::int64_t>(plan.padded.width) * plan.padded.height > limits.pixels_max)
    throw Error(ErrorCode::kOutOfResources,
                format("picture: {}x{} pixels are extended to {}x{}, limit is {} in all", size.width, size.height,
                       plan.padded.width, plan.padded.height, limits.pixels_max));
  if (static_cast<std::int64_t>(plan.columns) * plan.rows > limits.crops_max)
    throw Error(ErrorCode::kOutOfResources, format("picture: {}x{} pixels are seen in {} crops, limit is {}",
                                                   size.width, size.height, plan.crops(), limits.crops_max));
}

std::vector<CropCorner> crop_corners(const CropPlan& plan) {
  std::vector<CropCorner> corners;
  const auto at = [&](std::int32_t i, std::int32_t side) {
    return std::max(0, std::min(i * plan.window, side - plan.window));
  };
  for (std::int32_t row = 0; row < plan.rows; ++row)
    for (std::int32_t column = 0; column < plan.columns; ++column)
      corners.push_back({at(column, plan.snapped.width), at(row, plan.snapped.height)});
  return corners;
}

}  // namespace tandem
