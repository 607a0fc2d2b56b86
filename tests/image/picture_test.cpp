// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "image/picture.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "base/error.h"
#include "tests/image/png_header.h"
#include "tests/image/recording.h"

namespace tandem {
namespace {

using testing::HasSubstr;

std::string picture_file(const std::string& name) {
  return read_test_file("tests/goldens/pictures/" + name);
}

// Why decoding is refused; empty when it is not.
std::string refusal(const std::string& bytes, const PictureLimits& limits = {}) {
  try {
    decode_picture(bytes, limits);
  } catch (const Error& error) {
    return error.message();
  }
  return "";
}

TEST(Picture, LosslessFormatsGiveTheirPixels) {
  const Picture expected = formula_picture({24, 16});
  for (const char* name : {"rgb.png", "rgb.webp"}) {
    const Picture picture = decode_picture(picture_file(name));
    EXPECT_EQ(picture.size, expected.size) << name;
    EXPECT_EQ(picture.rgb, expected.rgb) << name;
  }
}

TEST(Picture, JpegIsCloseAndGreyBecomesRgb) {
  const Picture picture = decode_picture(picture_file("smooth.jpg"));
  ASSERT_EQ(picture.size, (PictureSize{24, 16}));
  for (int y = 0; y < 16; ++y)
    for (int x = 0; x < 24; ++x) EXPECT_NEAR(picture.rgb[(y * 24 + x) * 3], x * 10, 8) << x << ' ' << y;
  const Picture grey = decode_picture(picture_file("grey.jpg"));
  ASSERT_EQ(grey.size, (PictureSize{24, 16}));
  for (std::size_t i = 0; i < grey.rgb.size(); i += 3) ASSERT_EQ(grey.rgb[i], grey.rgb[i + 2]);
}

TEST(Picture, IsTurnedUprightAsItsMetadataSays) {
  const Picture plain = decode_picture(picture_file("smooth.jpg")), turned = decode_picture(picture_file("turned.jpg"));
  ASSERT_EQ(turned.size, (PictureSize{16, 24}));
  // A quarter to the right: the left column, from below, becomes the top row.
  for (int i = 0; i < 16; ++i)
    EXPECT_EQ(turned.rgb[static_cast<std::size_t>(i) * 3], plain.rgb[static_cast<std::size_t>((15 - i) * 24) * 3]);
}

TEST(Picture, TransparentPixelsLieOverWhite) {
  const Picture picture = decode_picture(picture_file("transparent.png")), opaque = formula_picture({24, 16});
  for (int i = 0; i < 12 * 3; ++i) EXPECT_EQ(picture.rgb[i], 255);
  for (int i = 12 * 3; i < 24 * 3; ++i) EXPECT_EQ(picture.rgb[i], opaque.rgb[i]);
}

TEST(Picture, EachBadOneHasAReason) {
  EXPECT_THAT(refusal(picture_file("dot.png")), HasSubstr("1x1 pixels, the least is 2"));
  EXPECT_THAT(refusal(picture_file("cmyk.jpg")), HasSubstr("CMYK"));
  EXPECT_THAT(refusal(picture_file("animated.png")), HasSubstr("animated"));
  EXPECT_THAT(refusal(picture_file("animated.webp")), HasSubstr("animated"));
  EXPECT_THAT(refusal(picture_file("one.gif")), HasSubstr("supported are JPEG, PNG and WebP"));
  EXPECT_THAT(refusal("GET / HTTP/1.1"), HasSubstr("no picture"));
  EXPECT_THAT(refusal(""), HasSubstr("no picture"));
}

TEST(Picture, CutShortIsRefusedWhereverTheCutIs) {
  for (const char* name : {"rgb.png", "rgb.webp", "smooth.jpg"}) {
    const std::string whole = picture_file(name);
    for (std::size_t bytes = 0; bytes < whole.size() * 3 / 4; bytes += 7)
      EXPECT_NE(refusal(whole.substr(0, bytes)), "") << name << " " << bytes;
  }
}

TEST(Picture, LimitsHoldBeforeMemoryIsTaken) {
  EXPECT_THAT(refusal(png_header(60'000, 60'000)), HasSubstr("60000x60000 pixels, limit is 16384 a side"));
  EXPECT_THAT(refusal(png_header(16'000, 16'000)), HasSubstr("16000x16000 pixels, limit is 40000000 in all"));
  EXPECT_THAT(refusal(picture_file("rgb.png"), {.bytes_max = 100}), HasSubstr("213 bytes, limit is 100"));
  EXPECT_THAT(refusal(picture_file("rgb.png"), {.pixels_max = 383}), HasSubstr("24x16 pixels, limit is 383 in all"));
  EXPECT_EQ(refusal(picture_file("rgb.png"), {.pixels_max = 384}), "");
}

TEST(Picture, ResizeKeepsAConstantAndAveragesWhenShrinking) {
  Picture picture{.size = {64, 64}, .rgb = std::vector<std::uint8_t>(64 * 64 * 3, 77)};
  for (const std::uint8_t value : resize_picture(picture, {9, 130}).rgb) ASSERT_EQ(value, 77);
  for (std::size_t i = 0; i < picture.rgb.size(); ++i) picture.rgb[i] = (i / 3) % 2 ? 200 : 100;
  for (const std::uint8_t value : resize_picture(picture, {8, 8}).rgb) EXPECT_NEAR(value, 150, 6);
}

TEST(Picture, DigestsNameBytes) {
  const ContentDigest abc = content_digest("abc");  // FIPS 180-2, B.1
  EXPECT_EQ(abc[0], 0xba);
  EXPECT_EQ(abc[31], 0xad);
  EXPECT_NE(content_digest("abd"), abc);
}

}  // namespace
}  // namespace tandem
