// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "image/crop_plan.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/image/recording.h"

namespace tandem {
namespace {

TEST(CropPlan, AgreesWithEveryRecordedPlan) {
  const Json plans = Json::parse(read_test_file("tests/goldens/step3_vl/preprocess_plans.json"));
  ASSERT_GE(plans.size(), 27u);
  const auto size_of = [](const Json& pair) { return PictureSize{pair[0], pair[1]}; };
  for (const Json& expected : plans) {
    SCOPED_TRACE(expected.dump());
    const CropPlan plan = plan_crops(size_of(expected["size"]));
    EXPECT_EQ(plan.padded, size_of(expected["padded"]));
    EXPECT_EQ(plan.shrunk, size_of(expected["shrunk"]));
    EXPECT_EQ(plan.window, expected["window"].get<int>());
    EXPECT_EQ(plan.columns, expected["columns"].get<int>());
    EXPECT_EQ(plan.rows, expected["rows"].get<int>());
    if (!expected["snapped"].is_null()) {
      EXPECT_EQ(plan.snapped, size_of(expected["snapped"]));
    }
  }
}

TEST(CropPlan, WindowsCoverThePictureAndStayInside) {
  for (const PictureSize size :
       {PictureSize{1280, 720}, {2000, 300}, {600, 1300}, {900, 400}, {44, 100}, {3024, 3024}}) {
    const CropPlan plan = plan_crops(size);
    const std::vector<CropCorner> corners = crop_corners(plan);
    ASSERT_EQ(static_cast<std::int32_t>(corners.size()), plan.crops());
    EXPECT_EQ(corners.front().x, 0);
    EXPECT_EQ(corners.front().y, 0);
    for (const CropCorner corner : corners) {
      EXPECT_GE(corner.x, 0);
      EXPECT_GE(corner.y, 0);
      EXPECT_LE(corner.x, std::max(0, plan.snapped.width - plan.window));
      EXPECT_LE(corner.y, std::max(0, plan.snapped.height - plan.window));
    }
    EXPECT_GE(corners.back().x + plan.window, plan.snapped.width);
    EXPECT_GE(corners.back().y + plan.window, plan.snapped.height);
  }
}

TEST(CropPlan, RowsComeOneAfterAnother) {
  const std::vector<CropCorner> corners = crop_corners(plan_crops({1280, 720}));
  ASSERT_EQ(corners.size(), 6u);
  EXPECT_EQ(corners[1].x, 504);
  EXPECT_EQ(corners[1].y, 0);
  EXPECT_EQ(corners[3].x, 0);
  EXPECT_EQ(corners[3].y, 504);
}

TEST(CropPlan, RefusesWhatWouldTakeTheTowerTooLong) {
  EXPECT_NO_THROW(check_crops(plan_crops({3024, 3024})));
  EXPECT_THROW(check_crops(plan_crops({16384, 32})), Error);  // hundreds of windows of five pixels
  EXPECT_THROW(check_crops(plan_crops({16384, 4})), Error);   // a square of 16384
  EXPECT_NO_THROW(check_crops(plan_crops({5000, 4})));
  EXPECT_THROW(check_crops(plan_crops({1280, 720}), {.crops_max = 5}), Error);
}

}  // namespace
}  // namespace tandem
