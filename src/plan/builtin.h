// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The hardware and model files of src/plan/hardware and src/plan/models, which the program carries in itself.
#pragma once

#include <span>
#include <string_view>

namespace tandem {

struct BuiltinFile {
  std::string_view name;  // without .toml; what the command line calls it
  std::string_view text;
};

std::span<const BuiltinFile> builtin_hardware();
std::span<const BuiltinFile> builtin_models();

}  // namespace tandem
