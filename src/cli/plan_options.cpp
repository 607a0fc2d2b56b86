// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "cli/plan_options.h"

#include <charconv>
#include <cstdio>
#include <fstream>

#include "base/error.h"
#include "base/format.h"

namespace tandem {

namespace {
constexpr std::int64_t kTokensMax = std::int64_t{1} << 30;
}

std::int64_t parse_tokens(const std::string& text, const std::string& flag) {
  std::int64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [rest, failure] = std::from_chars(text.data(), end, value);
  std::int64_t unit = 1;
  bool good = failure == std::errc{} && rest != text.data();
  if (good && rest != end) {
    unit = *rest == 'K' || *rest == 'k' ? 1024 : *rest == 'M' ? 1024 * 1024 : 0;
    good = unit > 0 && rest + 1 == end;
  }
  if (!good || value < 1 || value > kTokensMax / unit)
    throw Error(ErrorCode::kInvalidArgument,
                format("{}: '{}' is no number of tokens between 1 and {}, such as 8192 or 8K", flag, text, kTokensMax));
  return value * unit;
}

std::vector<ModelShape> find_shapes(const std::vector<std::string>& names) {
  std::vector<ModelShape> shapes;
  shapes.reserve(names.size());
  for (const std::string& name : names) shapes.push_back(find_shape(name));
  return shapes;
}

std::vector<Hardware> find_all_hardware(const std::vector<std::string>& names) {
  std::vector<Hardware> all;
  all.reserve(names.size());
  for (const std::string& name : names) all.push_back(find_hardware(name));
  return all;
}

std::string model_help() {
  return format("{}; a .toml file of that kind; a checkpoint or config.json", join(shape_names(), ", "));
}

std::string hardware_help() {
  return format("{}; or a .toml file of that kind", join(hardware_names(), ", "));
}

void write_output(const std::string& path, const std::string& text) {
  if (path.empty()) {
    std::fputs(text.c_str(), stdout);
    return;
  }
  std::ofstream file(path, std::ios::binary);
  if (!(file << text).flush()) throw Error(ErrorCode::kInvalidArgument, format("{}: cannot be written", path));
}

}  // namespace tandem
