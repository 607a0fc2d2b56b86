// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Which GPU each worker of this process is on, and what the workers of a GPU take of its memory. Workers of a kind go
// to the GPUs of their list in turn. On the CPU there is one place, which counts as number 0.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "engine/settings/engine_config.h"

namespace tandem {

std::int32_t gpu_of(const EngineConfig& config, PeerRank rank);
// What the vision tower of a model that sees runs on, and its GPU where that is cuda.
const std::string& vision_backend(const EngineConfig& config);
std::int32_t vision_gpu(const EngineConfig& config);

// GPUs that are given and cannot be: without device cuda, for workers that the layout does not have. Whether the
// machine has them is not asked. Throws Error{kInvalidArgument}.
void check_gpus(const EngineConfig& config);
// Leaves out GPUs that the layout has no workers for: where one list is for several layouts.
void fit_gpus(EngineConfig& config);

// How often the attention half is loaded: workers of one GPU share it.
std::int32_t attention_copies(const EngineConfig& config);
// What all workers of the layout load and keep, and the vision tower, place by place.
std::vector<MemoryUse> memory_uses(const EngineConfig& config, const Checkpoint& checkpoint, const ModelConfig& model);

std::string describe_gpus(const EngineConfig& config);  // "A0, A1 on GPU 0; F0 on GPU 1"

}  // namespace tandem
