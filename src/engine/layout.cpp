// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "engine/layout.h"

#include <charconv>

#include "base/error.h"
#include "base/format.h"

namespace tandem {

Layout parse_layout(const std::string& text) {
  if (text == "local") return {};
  Layout layout;
  const char *at = text.data(), *end = at + text.size();
  const auto number = [&](char letter, std::int32_t& value) {
    const auto [next, failure] = std::from_chars(at, end, value);
    const bool good =
        failure == std::errc() && next < end && (*next | 0x20) == letter && value >= 1 && value <= kWorkersMax;
    at = good ? next + 1 : end;
    return good;
  };
  if (!number('a', layout.attention_workers) || !number('f', layout.ffn_workers) || at != end)
    throw Error(
        ErrorCode::kInvalidArgument,
        format("layout is \"{}\", expected local or xAyF with x and y in 1 … {}, such as 2A1F", text, kWorkersMax));
  return layout;
}

std::string to_string(const Layout& layout) {
  return layout.local() ? "local" : format("{}A{}F", layout.attention_workers, layout.ffn_workers);
}

std::vector<ModelShare> shares(const Layout& layout, std::int32_t experts) {
  std::vector<ModelShare> all{{.attention = true, .ffn = layout.local(), .experts = ffn_share(0, 1, experts)}};
  for (std::int32_t f = 0; f < layout.ffn_workers; ++f)
    all.push_back({.attention = false, .ffn = true, .experts = ffn_share(f, layout.ffn_workers, experts)});
  return all;
}

}  // namespace tandem
