// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What kernels of attention over plain pages share: what a row sees, the parts its context is cut into, and how parts
// of a softmax are merged.
#pragma once

#include "ops/cuda/attention_choice.h"
#include "ops/cuda/cuda_kv_cache.cuh"

namespace tandem::cuda {

struct Attention {
  Rows<float> out, q;
  const std::int32_t *sequences, *positions, *block_table;
  std::int64_t table_stride;
  std::int32_t heads, group;  // query heads, and those of them that share a key head
  std::int32_t window;        // 0: none
  float scale;
  float* scratch;  // parts of a row and head after one another, v_dim + 2 floats each; null: merged as they come
  std::int32_t parts_max;
};

// What a row sees of its context, and the parts that lie in.
struct Seen {
  std::int32_t begin, end;

  __device__ Seen(const Attention& a, std::int32_t row) : end(a.positions[row] + 1) {
    begin = a.window > 0 && end > a.window ? end - a.window : 0;
  }
  __device__ std::int32_t first_part() const { return begin / kPartTokens; }
  __device__ std::int32_t end_part() const { return (end + kPartTokens - 1) / kPartTokens; }
};

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
