// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A head of 256 in the registers of one warp, and how it is stored: as a key, as a value, as a query (mfa_page.h).
#pragma once

#include <cstdint>

#include "ops/cuda/attention/mfa_page.h"
#include "ops/cuda/bf16.cuh"
#include "ops/cuda/ptx/e4m3.cuh"

namespace tandem::cuda {

inline constexpr int kPairs = MfaPage::kDim / 2;

// The dims of one lane: x[0 … 3] from 4 lane, x[4 … 7] from 128 + 4 lane.
struct Lane {
  float x[8];

  __device__ static int dim(int i) { return 4 * (threadIdx.x % 32) + (i & 3) + (i >> 2) * kPairs; }

  __device__ float largest() const {
    float largest = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) largest = fmaxf(largest, fabsf(x[i]));
    for (int d = 1; d < 32; d <<= 1) largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, d));
    return largest;
  }
  __device__ std::uint32_t packed(int half) const {
    return ptx::to_e4m3(x[4 * half], x[4 * half + 1], x[4 * half + 2], x[4 * half + 3]);
  }
};

template <class T>
__device__ Lane load(const T* row) {
  struct alignas(4 * sizeof(T)) Four {
    T x[4];
  };
  Lane lane;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const Four four = *reinterpret_cast<const Four*>(row + Lane::dim(4 * half));
#pragma unroll
    for (int i = 0; i < 4; ++i) lane.x[4 * half + i] = static_cast<float>(four.x[i]);
  }
  return lane;
}

// As load; a row may begin anywhere.
__device__ inline Lane load_anywhere(const float* row) {
  if (reinterpret_cast<std::uintptr_t>(row) % 16 == 0) return load(row);
  Lane lane;
#pragma unroll
  for (int i = 0; i < 8; ++i) lane.x[i] = row[Lane::dim(i)];
  return lane;
}

// kv_scale of f8_rows.h.
__device__ inline float token_scale(float largest) {
  if (largest == 0) return 1;
  const float scale = fmaxf(largest / ptx::kMaxE4m3, 1e-30f);
  return __uint_as_float((__float_as_uint(scale) + 0xffffu) & 0xffff0000u);
}

__device__ inline void quantise(Lane& lane, float scale) {
#pragma unroll
  for (int i = 0; i < 8; ++i) lane.x[i] = lane.x[i] / scale;
}

__device__ inline void store_key(std::uint8_t* page, int token, Lane lane) {
  const float scale = token_scale(lane.largest());
  quantise(lane, scale);
#pragma unroll
  for (int half = 0; half < 2; ++half)
    *reinterpret_cast<std::uint32_t*>(page + MfaPage::key_offset(token, Lane::dim(4 * half))) = lane.packed(half);
  if (threadIdx.x % 32 == 0) reinterpret_cast<float*>(page + MfaPage::kScalesAt)[token] = scale;
}

__device__ inline void store_value(std::uint8_t* page, int token, Lane lane) {
  const float scale = token_scale(lane.largest());
  quantise(lane, scale);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const std::uint32_t codes = lane.packed(half);
#pragma unroll
    for (int i = 0; i < 4; ++i)
      page[MfaPage::value_offset(Lane::dim(4 * half + i), token)] = static_cast<std::uint8_t>(codes >> (8 * i));
  }
  if (threadIdx.x % 32 == 0) {
    float* scales = reinterpret_cast<float*>(page + MfaPage::kScalesAt);
    scales[64 + token] = log2f(scale);
    scales[128 + token] = 1.f / scale;
  }
}

__device__ inline void store_query(std::uint8_t* tiles, float* scales, int head, Lane lane) {
  const float largest = lane.largest();
  const float scale = largest > 0 ? largest / ptx::kMaxE4m3 : 1.f;
  quantise(lane, scale);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const std::uint32_t high = lane.packed(half);
    const float* x = &lane.x[4 * half];
    const int at = MfaPage::key_offset(head, Lane::dim(4 * half));
    *reinterpret_cast<std::uint32_t*>(tiles + at) = high;
    *reinterpret_cast<std::uint32_t*>(tiles + MfaPage::kQueryTileBytes + at) =
        ptx::rest_e4m3(high, x[0], x[1], x[2], x[3]);
  }
  if (threadIdx.x % 32 == 0) scales[head] = scale;
}

// A key in its page, or a head's query in its tile.
__device__ inline void store_key_bf16(std::uint8_t* tile, int row, const Lane& lane) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float* x = &lane.x[4 * half];
    *reinterpret_cast<uint2*>(tile + MfaPageBf16::key_offset(row, Lane::dim(4 * half))) =
        make_uint2(to_bf16_pair(x[0], x[1]), to_bf16_pair(x[2], x[3]));
  }
}

// A head's query in two terms, the second one tile on.
__device__ inline void store_query_bf16(std::uint8_t* tiles, int head, const Lane& lane) {
  store_key_bf16(tiles, head, lane);
  Lane rest;
#pragma unroll
  for (int i = 0; i < 8; ++i) rest.x[i] = lane.x[i] - __bfloat162float(to_bf16(lane.x[i]));
  store_key_bf16(tiles + MfaPageBf16::kKeyBytes, head, rest);
}

__device__ inline void store_value_bf16(std::uint8_t* page, int token, const Lane& lane) {
#pragma unroll
  for (int i = 0; i < 8; ++i)
    *reinterpret_cast<__nv_bfloat16*>(page + MfaPageBf16::value_offset(Lane::dim(i), token)) = to_bf16(lane.x[i]);
}

__device__ inline void store_key_of(MfaCache cache, std::uint8_t* page, int token, const Lane& lane) {
  if (cache == MfaCache::kBf16)
    store_key_bf16(page, token, lane);
  else
    store_key(page, token, lane);
}

__device__ inline void store_value_of(MfaCache cache, std::uint8_t* page, int token, const Lane& lane) {
  if (cache == MfaCache::kBf16)
    store_value_bf16(page, token, lane);
  else
    store_value(page, token, lane);
}

}  // namespace tandem::cuda
