// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The end of a sum that several GPUs of a server have parts of, each from its part of the experts' width.
#pragma once

#include <cstdint>

#include "ops/cuda/split/seal.h"
#include "ops/cuda/stream.h"

namespace tandem::cuda {

// out[row] = own[row] + arrived[0][row] + arrived[1][row] + …, in f32 and in this order. Everything points to device
// memory.
struct AddPartials {
  const std::uint16_t* own;      // bf16 [rows, columns]
  const std::uint16_t* arrived;  // bf16 [neighbours, rows, columns]
  std::uint16_t* out;            // bf16 [rows, columns]
  std::int32_t neighbours, rows;
  std::int32_t columns;  // a multiple of 8

  SealWrite seal{};
};
void run(const AddPartials& op, Stream stream);

}  // namespace tandem::cuda
