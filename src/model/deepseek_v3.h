// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// DeepSeek-V3, R1 and what shares their layers (Kimi K2): multi-head latent attention, and experts that a sigmoid
// router chooses within groups.
#pragma once

#include <memory>

#include "model/model.h"

namespace tandem {

// Asks reader for every weight of the share; when the reader declares, the result is only good for being dropped.
std::unique_ptr<Model> make_deepseek_v3(const ModelConfig& config, CheckpointFormat names, const ModelShare& share,
                                        WeightReader& reader);

}  // namespace tandem
