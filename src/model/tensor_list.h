// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The tensors that a model's checkpoints have, from its configuration alone. There is no list anywhere: the model's own
// code is asked what it would read.
#pragma once

#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "model/weight_reader.h"

namespace tandem {

struct ListedTensor {
  std::string name;
  Shape shape;
  DType dtype;  // bf16; E4M3 (with a tensor of f32 scales behind it) where the configuration says so; f32 for scales
                // and for the biases of routers
  TensorRole role;
};

// In the order of loading. description has no weights, and what it describes is a Hugging Face folder. Throws Error
// like read_config.
std::vector<ListedTensor> list_tensors(const Checkpoint& description);

}  // namespace tandem
