// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The Llama family (Llama 2 and 3, SmolLM2): grouped-query attention with rotary positions, SwiGLU feed-forward.
#pragma once

#include <memory>

#include "model/model.h"

namespace tandem {

// Asks reader for every weight of the share; when the reader declares, the result is only good for being dropped.
std::unique_ptr<Model> make_llama(const ModelConfig& config, CheckpointFormat names, const ModelShare& share,
                                  WeightReader& reader);

}  // namespace tandem
