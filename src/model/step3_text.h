// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Step-3's language model (arXiv 2507.19427): multi-matrix factorisation attention, and in most layers 48 routed
// experts of which a token takes three, beside one shared expert.
#pragma once

#include <memory>

#include "model/model.h"

namespace tandem {

// See make_llama.
std::unique_ptr<Model> make_step3_text(const ModelConfig& config, const ModelShare& share, WeightReader& reader);

}  // namespace tandem
