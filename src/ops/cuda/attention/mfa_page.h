// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What a page of MFA looks like: 64 tokens of one layer, one K and one V head of 256, as the shared-memory image that
// WGMMA reads, so that a page is fetched by one plain copy. In FP8:
//   K       [64 tokens][256], two halves of 128 dims, 128-byte swizzle           16 KiB
//   V       transposed: [256 dims][64 slots], 64-byte swizzle                    16 KiB
//   scales  f32 [3][64]: K's, log2 of V's, 1 / V's                               768 bytes
// The slots of a V row are permuted so that the accumulator of the scores is, register for register, the A operand of
// the second product: slot 32 s + 16 h + 4 q + e holds token 8 (4 s + 2 h + e / 2) + 2 q + e % 2.
// Queries come in the same image as K: [64 heads][256], twice (mfa_prepare.h). In bf16 there are no scales, K has four
// parts of 64 dims, V [256 dims][64 tokens] in order, both with 128-byte swizzle, and queries come once.
#pragma once

#include <cstdint>

namespace tandem::cuda {

struct MfaPage {
  static constexpr int kTokens = 64;
  static constexpr int kHeads = 64;
  static constexpr int kDim = 256;
  static constexpr int kKeyBytes = kTokens * kDim;
  static constexpr int kValueBytes = kTokens * kDim;
  static constexpr int kScaleBytes = 3 * kTokens * 4;
  static constexpr int kScalesAt = kKeyBytes + kValueBytes;
  static constexpr int kBytes = kScalesAt + kScaleBytes;
  static constexpr int kQueryTileBytes = kHeads * kDim;

  // Of element dim of a token's key (or of a head's query).
  static constexpr int key_offset(int token, int dim) {
    const int chunk = (dim & 127) >> 4;
    return (dim >> 7) * 8192 + token * 128 + ((chunk ^ (token & 7)) << 4) + (dim & 15);
  }
  static constexpr int value_offset(int dim, int token) {
    const int slot = slot_of_token(token);
    return kKeyBytes + dim * 64 + (((slot >> 4) ^ ((dim >> 1) & 3)) << 4) + (slot & 15);
  }
  static constexpr int slot_of_token(int token) {
    const int group = token >> 3;
    return 32 * (group >> 2) + 16 * ((group >> 1) & 1) + 4 * ((token & 7) >> 1) + 2 * (group & 1) + (token & 1);
  }
};

struct MfaPageBf16 {
  static constexpr int kKeyBytes = 64 * 256 * 2;
  static constexpr int kBytes = 2 * kKeyBytes;
  static constexpr int key_offset(int token, int dim) {
    return (dim >> 6) * 8192 + token * 128 + (((dim & 63) >> 3 ^ (token & 7)) << 4) + (dim & 7) * 2;
  }
  static constexpr int value_offset(int dim, int token) {
    return kKeyBytes + dim * 128 + ((token >> 3 ^ (dim & 7)) << 4) + (token & 7) * 2;
  }
};

enum class MfaCache : std::uint8_t { kFp8, kBf16 };

constexpr int mfa_page_bytes(MfaCache cache) {
  return cache == MfaCache::kBf16 ? MfaPageBf16::kBytes : MfaPage::kBytes;
}
// Of 64 heads in one term.
constexpr int mfa_query_term_bytes(MfaCache cache) {
  return cache == MfaCache::kBf16 ? MfaPageBf16::kKeyBytes : MfaPage::kQueryTileBytes;
}

}  // namespace tandem::cuda
