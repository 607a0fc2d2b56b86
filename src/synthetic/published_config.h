// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The config.json of published models, as far as it shapes a model: what synthetic checkpoints are made like.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace tandem {

struct PublishedConfig {
  std::string_view name;   // on the command line: "step3_fp8"
  std::string_view model;  // what it is the configuration of
  std::string_view json;
};

const std::vector<PublishedConfig>& published_configs();

// By name, or from the config.json of a folder, or of a file that ends in .json. Throws Error{kInvalidArgument} listing
// the names, {kNotFound, kInvalidData} for a file.
OrderedJson find_config(const std::string& name_or_path);

// The quantization_config of weights in E4M3 with a scale for each block of 128 × 128.
OrderedJson block_fp8_config();

}  // namespace tandem
