// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The text half of Step-3.5-Flash and its successors: full and sliding-window attention mixed, gated heads.
#pragma once

#include <memory>

#include "model/model.h"

namespace tandem {

// Asks reader for every weight of the share; when the reader declares, the result is only good for being dropped.
std::unique_ptr<Model> make_step3p5(const ModelConfig& config, const ModelShare& share, WeightReader& reader);

}  // namespace tandem
