// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Finding hardware and model files: by the name of one that the program brings, or by path.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "plan/builtin.h"

namespace tandem {

struct PlanFile {
  std::string text;
  std::string what;  // in messages
};

// kind is "hardware" or "model". A name is looked up among the builtin ones whatever its case; what ends in .toml is
// a path. Throws Error{kInvalidArgument} listing the names, {kNotFound} for a file that cannot be read.
PlanFile find_plan_file(const std::string& name_or_path, std::span<const BuiltinFile> builtin, const std::string& kind);

// At most a megabyte. Throws Error{kNotFound, kInvalidData}.
std::string read_plan_file(const std::string& path);

std::vector<std::string> names_of(std::span<const BuiltinFile> builtin);

}  // namespace tandem
