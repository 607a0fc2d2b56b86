// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Reading a weight in a kernel: eight values of a row at a time, from k = step · 32 + part · 8.
#pragma once

#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <type_traits>

#include "ops/cuda/bf16.cuh"
#include "ops/cuda/cuda_weight.cuh"

namespace tandem::cuda {

template <Store store>
struct Eight;

template <>
struct Eight<Store::kF32> {
  static constexpr int kTerms = 3;  // bf16 terms that hold a value exactly
  float4 low, high;
  __device__ void load(const Segment& s, std::int32_t column, std::int32_t step, int part) {
    const auto* row = reinterpret_cast<const float4*>(s.data + column * s.row_bytes) + step * 8 + part * 2;
    low = __ldg(row);
    high = __ldg(row + 1);
  }
  __device__ void widen(float (&v)[8]) const {
    v[0] = low.x, v[1] = low.y, v[2] = low.z, v[3] = low.w;
    v[4] = high.x, v[5] = high.y, v[6] = high.z, v[7] = high.w;
  }
};

template <>
struct Eight<Store::kBF16> {
  static constexpr int kTerms = 1;
  uint4 bits;
  __device__ void load(const Segment& s, std::int32_t column, std::int32_t step, int part) {
    bits = __ldg(reinterpret_cast<const uint4*>(s.data + column * s.row_bytes) + step * 4 + part);
  }
  __device__ void widen(float (&v)[8]) const {
    const std::uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      v[2 * i] = low_of_bf16(words[i]);
      v[2 * i + 1] = high_of_bf16(words[i]);
    }
  }
};

template <>
struct Eight<Store::kF16> {
  static constexpr int kTerms = 2;
  uint4 bits;
  __device__ void load(const Segment& s, std::int32_t column, std::int32_t step, int part) {
    bits = __ldg(reinterpret_cast<const uint4*>(s.data + column * s.row_bytes) + step * 4 + part);
  }
  __device__ void widen(float (&v)[8]) const {
    const std::uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      v[2 * i] = __half2float(__ushort_as_half(static_cast<unsigned short>(words[i])));
      v[2 * i + 1] = __half2float(__ushort_as_half(static_cast<unsigned short>(words[i] >> 16)));
    }
  }
};

template <>
struct Eight<Store::kQ8_0> {
  static constexpr int kTerms = 3;
  uint2 bits;
  __half scale;
  __device__ void load(const Segment& s, std::int32_t column, std::int32_t step, int part) {
    bits = __ldg(reinterpret_cast<const uint2*>(s.data + column * s.row_bytes) + step * 4 + part);
    scale = static_cast<const __half*>(s.scales)[column * (s.row_bytes / kStep) + step];
  }
  __device__ void widen(float (&v)[8]) const {
    const float d = __half2float(scale);
#pragma unroll
    for (int i = 0; i < 8; ++i)
      v[i] = d * static_cast<float>(static_cast<signed char>((i < 4 ? bits.x : bits.y) >> (8 * (i % 4))));
  }
};

template <>
struct Eight<Store::kQ4_0> {
  static constexpr int kTerms = 2;  // 11 bits of the scale and 4 of the value fit twice 8
  std::uint32_t bits;
  __half scale;
  __device__ void load(const Segment& s, std::int32_t column, std::int32_t step, int part) {
    bits = __ldg(reinterpret_cast<const std::uint32_t*>(s.data + column * s.row_bytes) + step * 4 + part);
    scale = static_cast<const __half*>(s.scales)[column * (s.row_bytes / (kStep / 2)) + step];
  }
  __device__ void widen(float (&v)[8]) const {
    const float d = __half2float(scale);
#pragma unroll
    for (int i = 0; i < 8; ++i) v[i] = d * static_cast<float>(static_cast<int>(bits >> (4 * i) & 15u) - 8);
  }
};

template <>
struct Eight<Store::kQ4_1> {
  static constexpr int kTerms = 3;
  std::uint32_t bits;
  __half2 scale;
  __device__ void load(const Segment& s, std::int32_t column, std::int32_t step, int part) {
    bits = __ldg(reinterpret_cast<const std::uint32_t*>(s.data + column * s.row_bytes) + step * 4 + part);
    scale = static_cast<const __half2*>(s.scales)[column * (s.row_bytes / (kStep / 2)) + step];
  }
  __device__ void widen(float (&v)[8]) const {
    const float d = __low2float(scale), m = __high2float(scale);
#pragma unroll
    for (int i = 0; i < 8; ++i) v[i] = d * static_cast<float>(bits >> (4 * i) & 15u) + m;
  }
};

template <>
struct Eight<Store::kF8Tiles> {
  static constexpr int kTerms = 3;  // a scale is any f32
  uint2 bits;
  float scale;
  __device__ void load(const Segment& s, std::int32_t column, std::int32_t step, int part) {
    constexpr int kSteps = Fp8Tile::kDepth / kStep;
    const std::int32_t block = column / Fp8Tile::kWeightRows, depth = step / kSteps;
    const std::byte* tile = s.data + depth * s.row_bytes + static_cast<std::int64_t>(block) * Fp8Tile::kWeightBytes;
    const int k = step % kSteps * kStep + part * kLaneValues;
    bits = __ldg(reinterpret_cast<const uint2*>(tile + Fp8Tile::offset(column % Fp8Tile::kWeightRows, k)));
    scale = __ldg(static_cast<const float*>(s.scales) + static_cast<std::int64_t>(block) * s.scale_blocks + depth);
  }
  __device__ void widen(float (&v)[8]) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const std::uint32_t word = i < 2 ? bits.x : bits.y;
      const auto pair = static_cast<__nv_fp8x2_storage_t>(word >> (16 * (i % 2)));
      const float2 two = __half22float2(__half2(__nv_cvt_fp8x2_to_halfraw2(pair, __NV_E4M3)));
      v[2 * i] = two.x * scale;
      v[2 * i + 1] = two.y * scale;
    }
  }
};

template <>
struct Eight<Store::kBf16Tiles> : Eight<Store::kBF16> {
  __device__ void load(const Segment& s, std::int32_t column, std::int32_t step, int part) {
    constexpr int kSteps = Bf16Tile::kDepth / kStep;
    const std::byte* tile = s.data + step / kSteps * s.row_bytes +
                            static_cast<std::int64_t>(column / Bf16Tile::kWeightRows) * Bf16Tile::kWeightBytes;
    const int k = step % kSteps * kStep + part * kLaneValues;
    bits = __ldg(reinterpret_cast<const uint4*>(tile + Bf16Tile::offset(column % Bf16Tile::kWeightRows, k)));
  }
};

// Calls f with the segment's store as a constant.
template <class F>
__device__ void with_store(Store store, const F& f) {
  switch (store) {
    case Store::kF32:
      return f(std::integral_constant<Store, Store::kF32>());
    case Store::kBF16:
      return f(std::integral_constant<Store, Store::kBF16>());
    case Store::kF16:
      return f(std::integral_constant<Store, Store::kF16>());
    case Store::kQ8_0:
      return f(std::integral_constant<Store, Store::kQ8_0>());
    case Store::kQ4_0:
      return f(std::integral_constant<Store, Store::kQ4_0>());
    case Store::kQ4_1:
      return f(std::integral_constant<Store, Store::kQ4_1>());
    case Store::kF8Tiles:
      return f(std::integral_constant<Store, Store::kF8Tiles>());
    case Store::kBf16Tiles:
      return f(std::integral_constant<Store, Store::kBf16Tiles>());
  }
}

}  // namespace tandem::cuda
