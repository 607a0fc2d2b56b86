// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Qwen3, dense and with experts: grouped-query attention whose query and key heads are normalised before the rotation.
#pragma once

#include <memory>

#include "model/model.h"

namespace tandem {

// Asks reader for every weight of the share; when the reader declares, the result is only good for being dropped.
std::unique_ptr<Model> make_qwen3(const ModelConfig& config, CheckpointFormat names, const ModelShare& share,
                                  WeightReader& reader);

}  // namespace tandem
