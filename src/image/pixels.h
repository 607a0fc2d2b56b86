// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A picture's views as the vision tower takes them: squares of normalised f32 RGB. Views are made one at a time, since
// a large picture has many.
#pragma once

#include <cstdint>
#include <vector>

#include "image/crop_plan.h"
#include "image/picture.h"

namespace tandem {

struct View {
  std::int32_t side = 0;
  std::vector<float> rgb;  // [side, side, 3]
};

class PictureViews {
 public:
  explicit PictureViews(const Picture& picture);

  const CropPlan& plan() const { return plan_; }
  View crop(std::int32_t index) const;  // [0, plan().crops())
  View whole() const;

 private:
  CropPlan plan_;
  std::vector<CropCorner> corners_;
  Picture shrunk_, snapped_;  // no snapped one without crops
};

}  // namespace tandem
