// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "engine/worker/layout.h"

#include <charconv>

#include "base/error.h"
#include "base/format.h"
#include "ops/weight.h"

namespace tandem {

Layout parse_layout(const std::string& text) {
  if (text == "local") return {};
  const char *at = text.data(), *end = at + text.size();
  // A number and one of the two letters behind it; which: the letter, 0 where there is no such thing.
  const auto number = [&](char letter, char other, std::int32_t& value) -> char {
    const auto [next, failure] = std::from_chars(at, end, value);
    const auto which = static_cast<char>(next < end ? *next | 0x20 : 0);
    if (failure != std::errc() || value < 1 || value > kWorkersMax || (which != letter && which != other)) return 0;
    at = next + 1;
    return which;
  };
  std::int32_t attention = 0, groups = 0, width = 1;
  bool good = number('a', 'a', attention) != 0;
  const char behind = good ? number('x', 'f', groups) : '\0';
  good = behind == 'f' || (behind == 'x' && number('f', 'f', width) != 0);
  if (!good || at != end || (width & (width - 1)) != 0 || width > KSlices::kCountMax || groups * width > kWorkersMax)
    throw Error(
        ErrorCode::kInvalidArgument,
        format("layout is \"{0}\", expected local, or xAyF with x and y in 1 … {1}, such as 2A1F, or xAyxwF for "
               "y groups of experts whose width is cut into w parts, 1, 2, 4 or 8, such as 1A2x2F, and y · w "
               "up to {1}",
               text, kWorkersMax));
  return {attention, groups * width, width};
}

std::string to_string(const Layout& layout) {
  if (layout.local()) return "local";
  const FfnSplit split = layout.ffn_split();
  return split.width == 1 ? format("{}A{}F", layout.attention_workers, split.experts)
                          : format("{}A{}x{}F", layout.attention_workers, split.experts, split.width);
}

std::vector<ModelShare> shares(const Layout& layout, std::int32_t experts) {
  std::vector<ModelShare> all{{.attention = true, .ffn = layout.local(), .experts = ffn_share(0, 1, experts)}};
  for (std::int32_t f = 0; f < layout.ffn_workers; ++f)
    all.push_back({.attention = false, .ffn = true, .experts = ffn_share(f, layout.ffn_split(), experts)});
  return all;
}

}  // namespace tandem
