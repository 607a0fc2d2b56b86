// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Random numbers made on the GPU, for inputs too large to be made on the CPU.
#pragma once

#include <cstdint>

#include "ops/cuda/stream.h"

namespace tandem::cuda {

// out[row][i] = (normal + mean) · 2^(spread · normal of the row).
struct FillNormal {
  float* out;
  std::int64_t rows, columns;
  float mean = 0;
  float spread = 0;
  std::uint32_t seed = 1;
};
void run(const FillNormal& op, Stream stream);

// E4M3 codes of normal numbers with the deviation 64.
struct FillE4m3 {
  std::uint8_t* out;
  std::int64_t bytes;
  std::uint32_t seed = 1;
};
void run(const FillE4m3& op, Stream stream);

struct FillNormalBf16 {
  std::uint16_t* out;
  std::int64_t values;
  float deviation = 1;
  std::uint32_t seed = 1;
};
void run(const FillNormalBf16& op, Stream stream);

// Pages of an FP8 cache (attention/mfa_page.h), keys and values of deviation 1.
struct FillMfaPages {
  std::uint8_t* pages;
  std::int64_t count;
  std::uint32_t seed = 1;
};
void run(const FillMfaPages& op, Stream stream);

}  // namespace tandem::cuda
