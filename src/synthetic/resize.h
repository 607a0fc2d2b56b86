// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A configuration made smaller or larger. Heads keep their size, and groups of heads their number of heads, so that the
// same kernels run; which layers have experts stays in proportion.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"

namespace tandem {

struct Resizing {
  // Of widths, layers and heads, each: the parameters of a layer go with its square. Widths end on 128, or at 128.
  double scale = 1;
  // In place of what scale makes of them.
  std::optional<std::int64_t> layers, hidden, experts, vocab;
  std::optional<bool> fp8;  // whether weights are FP8 in blocks; none: as it was
  // Any key of the language model's part, after all others.
  std::vector<std::pair<std::string, OrderedJson>> settings;
};

// config is that of a supported architecture. What comes out may still be refused by read_config: that says why.
OrderedJson resize(OrderedJson config, const Resizing& resizing);

// The part that describes the language model: the whole, or text_config.
OrderedJson& text_part(OrderedJson& config);

}  // namespace tandem
