// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// How Step-3 looks at a picture: always as a whole, and, when it is large or long, through a grid of square windows
// too. Integers in, integers out; no pixels here.
#pragma once

#include <cstdint>
#include <vector>

#include "image/picture.h"

namespace tandem {

// Sides in pixels of the squares that the vision tower takes.
inline constexpr std::int32_t kWholeSide = 728;
inline constexpr std::int32_t kCropSide = 504;

struct CropPlan {
  PictureSize size;         // as it came
  PictureSize padded;       // a very thin one is extended with black to a square, at its right and bottom
  PictureSize shrunk;       // within the longest side; the view of the whole is made of this
  std::int32_t window = 0;  // side of the square windows; 0: no crops
  PictureSize snapped;      // sides near whole numbers of windows; crops are cut from this
  std::int32_t columns = 0, rows = 0;

  std::int32_t crops() const { return columns * rows; }
};

struct CropCorner {
  std::int32_t x = 0, y = 0;
};

CropPlan plan_crops(PictureSize size);

struct CropLimits {
  std::int32_t crops_max = 128;                          // each takes the tower's time; 3024x3024 has 36
  std::int64_t pixels_max = PictureLimits{}.pixels_max;  // of the padded picture: a thread of 16384 becomes a square
};
// Throws Error{kOutOfResources} for a plan beyond the limits.
void check_crops(const CropPlan& plan, const CropLimits& limits = {});

// The windows' corners, row after row. The last ones of rows and columns are moved back inside.
std::vector<CropCorner> crop_corners(const CropPlan& plan);

}  // namespace tandem
