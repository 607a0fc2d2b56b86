// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The device's part of seal.h.
#pragma once

#include "ops/cuda/split/seal.h"

namespace tandem::cuda {

// One thread. What does not fit is counted: the step's end tells the host.
__device__ inline void check_seal(const SealCheck& check) {
  if (check.seal == nullptr) return;
  const Seal found = *check.seal;
  const Seal& wanted = check.expected;
  if (found.step != *check.step - check.steps_ago || found.layer != wanted.layer ||
      found.micro_batch != wanted.micro_batch || found.rows != wanted.rows)
    atomicAdd(check.mismatches, 1u);
}

__device__ inline void write_seal(const SealWrite& write) {
  if (write.seal == nullptr) return;
  Seal seal = write.value;
  seal.step = *write.step;
  *write.seal = seal;
}

}  // namespace tandem::cuda
