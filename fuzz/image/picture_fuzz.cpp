// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Any bytes as a picture: an Error, or pixels within the limits from which every view can be made.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "base/error.h"
#include "image/picture.h"
#include "image/pixels.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const tandem::PictureLimits limits{.side_max = 256, .pixels_max = 1 << 14};
  try {
    const tandem::Picture picture = tandem::decode_picture({reinterpret_cast<const char*>(data), size}, limits);
    TANDEM_CHECK(picture.size.width <= limits.side_max && picture.size.height <= limits.side_max, "beyond the limit");
    const tandem::PictureViews views(picture);
    if (views.plan().crops() > 0) (void)views.crop(views.plan().crops() - 1);
  } catch (const tandem::Error&) {
  }
  return 0;
}
