// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What a page of MLA looks like: 64 tokens of one layer in bf16, each the compressed latent of 512 and a rotated key of
// 64, as the shared-memory image that WGMMA reads, so that any part of it is fetched by one plain copy. Nine tiles of
// 64 columns, [64 tokens][128 bytes] each with 128-byte swizzle; the last is the rotated key. The same tiles serve as
// keys (k runs along a row) and, the first eight, as values (k runs down the rows). Queries, absorbed into the latent's
// space, have the same image: two of 64 heads each.
#pragma once

namespace tandem::cuda {

struct MlaPage {
  static constexpr int kTokens = 64;
  static constexpr int kHeads = 128;
  static constexpr int kLatent = 512;
  static constexpr int kRope = 64;
  static constexpr int kWidth = kLatent + kRope;
  static constexpr int kTileBytes = kTokens * 128;
  static constexpr int kTiles = kWidth / 64;
  static constexpr int kBytes = kTiles * kTileBytes;
  static constexpr int kQueryBytes = 2 * kBytes;

  // Bytes, of element dim of a token's row, or of a head's query in its half.
  static constexpr int offset(int token, int dim) {
    return (dim >> 6) * kTileBytes + token * 128 + (((dim & 63) >> 3 ^ (token & 7)) << 4) + (dim & 7) * 2;
  }
};

}  // namespace tandem::cuda
