// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What stands before MLA attention: absorbed queries into the image that the decode kernel reads, latents and rotated
// keys into their pages. Both come rotated already.
#pragma once

#include <cstdint>

#include "ops/cuda/attention/mla_page.h"
#include "ops/cuda/stream.h"

namespace tandem::cuda {

// Everything points to device memory. Inputs are f32 and rounded to bf16; strides in elements.
struct MlaPrepare {
  std::uint8_t* q_tiles;  // [rows, MlaPage::kQueryBytes]; with q
  std::uint8_t* pages;
  std::int64_t page_stride;  // bytes
  const float* q;            // [rows, 128 · 576]; null: only the cache
  const float* latent;       // [rows, 576]: the latent, then the rotated key
  std::int64_t q_stride, latent_stride;
  const std::int32_t* slots;  // [rows], block · 64 + offset
  std::int32_t rows;
};
void run(const MlaPrepare& op, Stream stream);

}  // namespace tandem::cuda
