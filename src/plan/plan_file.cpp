// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "plan/plan_file.h"

#include <algorithm>
#include <cctype>

#include "base/error.h"
#include "base/format.h"
#include "base/read_file.h"
#include "base/settings_table.h"

namespace tandem {

namespace {

constexpr std::size_t kFileBytesMax = 1 << 20;

std::string lower(std::string text) {
  std::ranges::transform(text, text.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

}  // namespace

std::string read_plan_file(const std::string& path) {
  std::string text = read_file_start(path, kFileBytesMax);
  if (text.size() > kFileBytesMax)
    throw Error(ErrorCode::kInvalidData, format("{}: more than {} bytes", path, kFileBytesMax));
  return text;
}

PlanFile find_plan_file(const std::string& name_or_path, std::span<const BuiltinFile> builtin,
                        const std::string& kind) {
  if (name_or_path.ends_with(".toml")) return {read_plan_file(name_or_path), name_or_path};
  const std::string name = lower(name_or_path);
  for (const BuiltinFile& file : builtin)
    if (file.name == name) return {std::string(file.text), format("builtin {} {}", kind, file.name)};
  const std::vector<std::string> names = names_of(builtin);
  const std::string nearest = nearest_word(name, names);
  throw Error(ErrorCode::kInvalidArgument,
              format("{} '{}' is not known{}; known are {}, or a path to a .toml file", kind, name_or_path,
                     nearest.empty() ? "" : format("; did you mean {}?", nearest), join(names, ", ")));
}

std::vector<std::string> names_of(std::span<const BuiltinFile> builtin) {
  std::vector<std::string> names;
  for (const BuiltinFile& file : builtin) names.emplace_back(file.name);
  return names;
}

}  // namespace tandem
