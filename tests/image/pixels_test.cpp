// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "image/pixels.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/format.h"
#include "tests/image/recording.h"

namespace tandem {
namespace {

// Against the recorded rows and columns 0, 13, 26, … of [3, side, side].
double largest_difference(const View& view, const std::vector<float>& recorded) {
  const std::int32_t count = (view.side + 12) / 13;
  EXPECT_EQ(recorded.size(), static_cast<std::size_t>(3 * count * count));
  double largest = 0;
  for (std::int32_t c = 0; c < 3; ++c)
    for (std::int32_t y = 0; y < count; ++y)
      for (std::int32_t x = 0; x < count; ++x) {
        const float ours = view.rgb[static_cast<std::size_t>((y * 13 * view.side + x * 13) * 3 + c)];
        const float theirs = recorded[static_cast<std::size_t>((c * count + y) * count + x)];
        EXPECT_TRUE(std::isfinite(ours));
        largest = std::max(largest, static_cast<double>(std::abs(ours - theirs)));
      }
  return largest;
}

TEST(PictureViews, AgreeWithTheRecordedPixels) {
  const VisionRecording recording;
  const std::vector<PictureSize> sizes = recording.picture_sizes();
  ASSERT_EQ(sizes.size(), 6u);
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    const PictureViews views(formula_picture(sizes[i]));
    // Resized bytes are rounded after fixed-point weights; without that step only the f32 filter differs.
    const double tolerance = views.plan().crops() == 0 && views.plan().padded == sizes[i] ? 1e-4 : 0.02;
    const std::string picture = format("image{}.", i);
    EXPECT_LE(largest_difference(views.whole(), recording.values<float>(picture + "whole_every13")), tolerance) << i;
    for (std::int32_t crop = 0; crop < views.plan().crops(); ++crop) {
      const std::string name = picture + format("crop{}_every13", crop);
      if (!recording.has(name)) continue;
      EXPECT_LE(largest_difference(views.crop(crop), recording.values<float>(name)), tolerance) << name;
    }
  }
}

}  // namespace
}  // namespace tandem
