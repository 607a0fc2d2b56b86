// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The recordings of Step-3's vision half: tests/goldens/step3_vl, and its pictures, which are formulas.
#pragma once

#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "checkpoint/mapped_file.h"
#include "checkpoint/safetensors.h"
#include "image/picture.h"

namespace tandem {

inline std::string read_test_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error(ErrorCode::kNotFound, path + ": cannot be read");
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// v(channel, y, x) = (7x + 13y + 29 channel + floor(x y / 16)) mod 256
inline Picture formula_picture(PictureSize size) {
  Picture picture{.size = size};
  for (std::int32_t y = 0; y < size.height; ++y)
    for (std::int32_t x = 0; x < size.width; ++x)
      for (std::int32_t c = 0; c < 3; ++c)
        picture.rgb.push_back(static_cast<std::uint8_t>((7 * x + 13 * y + 29 * c + x * y / 16) % 256));
  return picture;
}

class VisionRecording {
 public:
  VisionRecording()
      : file_(MappedFile::open("tests/goldens/step3_vl/expected.safetensors")),
        header_(parse_safetensors(file_.bytes(), "expected.safetensors")),
        json_(Json::parse(read_test_file("tests/goldens/step3_vl/expected.json"))) {}

  const Json& json() const { return json_; }
  bool has(const std::string& name) const { return find(name) != nullptr; }
  Shape shape(const std::string& name) const { return require(name).shape; }
  template <class T>
  std::vector<T> values(const std::string& name) const {
    const TensorInfo& info = require(name);
    std::vector<T> out(info.bytes / sizeof(T));
    std::memcpy(out.data(), file_.bytes().data() + info.offset, info.bytes);
    return out;
  }
  // The recorded pictures: those of the prompts, then those for preprocessing alone.
  std::vector<PictureSize> picture_sizes() const {
    std::vector<PictureSize> sizes;
    for (const Json& image : json_["images"]) sizes.push_back({image["size"][0], image["size"][1]});
    for (const Json& size : json_["preprocess_only"]) sizes.push_back({size[0], size[1]});
    return sizes;
  }

 private:
  const TensorInfo* find(const std::string& name) const {
    for (const TensorInfo& info : header_.tensors)
      if (info.name == name) return &info;
    return nullptr;
  }
  const TensorInfo& require(const std::string& name) const {
    const TensorInfo* info = find(name);
    if (!info) throw Error(ErrorCode::kNotFound, name + ": not recorded");
    return *info;
  }

  MappedFile file_;
  SafetensorsHeader header_;
  Json json_;
};

}  // namespace tandem
