// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "checkpoint/tensor_info.h"

#include <algorithm>

#include "base/check.h"

namespace tandem {

std::optional<std::uint64_t> element_count(std::span<const std::uint64_t> dims) {
  // Zeros count as one for the limit: [2^40, 2^40, 0] must not overflow whoever multiplies from the left.
  std::uint64_t product = 1;
  bool has_zero = false;
  for (const std::uint64_t d : dims) {
    has_zero |= d == 0;
    const std::uint64_t factor = std::max<std::uint64_t>(d, 1);
    if (factor > kTensorElementsMax / product) return std::nullopt;
    product *= factor;
  }
  return has_zero ? 0 : product;
}

Shape to_shape(std::span<const std::uint64_t> dims) {
  TANDEM_CHECK(element_count(dims), "dimensions were not checked");
  Shape shape;
  for (const std::uint64_t d : dims) {
    if (shape.rank < 4) {
      shape.dims[shape.rank++] = static_cast<std::int64_t>(d);
    } else {
      shape.dims[3] *= static_cast<std::int64_t>(d);
    }
  }
  return shape;
}

std::string printable(std::string_view text) {
  constexpr std::size_t kShownMax = 120;
  std::string shown(text.substr(0, kShownMax));
  for (char& c : shown) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) c = '?';
  }
  if (text.size() > kShownMax) shown += "...";
  return shown;
}

}  // namespace tandem
