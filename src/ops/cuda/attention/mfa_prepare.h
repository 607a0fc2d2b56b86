// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What stands before MFA attention: rotary embedding, queries into the two-term image that the decode kernel reads,
// keys and values into their pages, each token with scales of its own. And pages to and from the canonical form (f32).
//
// FP8: a scale is the token's largest magnitude / 448, rounded up to eight significant bits. So code · scale is exact
// in f32, and a page that was exported and imported again has the same bits.
#pragma once

#include <cstdint>

#include "ops/cuda/attention/mfa_page.h"
#include "ops/cuda/stream.h"

namespace tandem::cuda {

// Everything points to device memory. q, k and v are f32, or bf16 when bf16 is set; strides in elements, multiples
// of 4. The kernel before this one in the stream writes neither positions nor inv_freq.
struct MfaPrepare {
  MfaCache cache;
  std::uint8_t* q_tiles;  // [rows, 2 · 64 · 256]: two FP8 terms, or bf16; with q
  float* q_scales;        // [rows, 64]; FP8
  std::uint8_t* pages;
  std::int64_t page_stride;
  const void* q;  // [rows, 64 · 256]; null: keys and values only
  const void* k;  // [rows, 256]
  const void* v;  // [rows, 256]
  std::int64_t q_stride, k_stride, v_stride;
  bool bf16;
  const std::int32_t* positions;  // [rows]
  const std::int32_t* slots;      // [rows], block · 64 + offset
  const float* inv_freq;          // [128]; pairs are (m, m + 128)
  std::int32_t rows;
};
void run(const MfaPrepare& op, Stream stream);

// One layer of the canonical page: K then V, f32 [64, 256] each, in device memory.
struct MfaExportPage {
  MfaCache cache;
  float* canonical;
  const std::uint8_t* page;
};
void run(const MfaExportPage& op, Stream stream);

struct MfaImportPage {
  MfaCache cache;
  std::uint8_t* page;
  const float* canonical;
};
void run(const MfaImportPage& op, Stream stream);

}  // namespace tandem::cuda
