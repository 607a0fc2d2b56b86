// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// How parts of a softmax are merged, by whichever kernel does it.
#pragma once

#include "ops/cuda/attention_choice.h"

namespace tandem::cuda {

struct MergeFactors {
  float before, part;
};

// The largest score and the sum of exponentials of the parts so far. Outputs follow by the factors.
struct Merged {
  float top = -INFINITY, sum = 0;

  __device__ MergeFactors add(float part_top, float part_sum) {
    const float together = fmaxf(top, part_top);
    const MergeFactors factors{expf(top - together), expf(part_top - together)};
    sum = sum * factors.before + part_sum * factors.part;
    top = together;
    return factors;
  }
};

}  // namespace tandem::cuda
