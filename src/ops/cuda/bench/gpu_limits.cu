// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/bench/gpu_limits.h"

#include "base/error.h"
#include "ops/cuda/bench/random_fill.h"
#include "ops/cuda/device.h"
#include "ops/cuda/device_memory.h"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/ptx/wgmma.cuh"

namespace tandem::cuda {

namespace {

constexpr std::size_t kReadBytes = std::size_t{2} << 30;
constexpr int kProducts = 2048;  // of 64 x 128 x 32 bytes, by each warpgroup

__global__ void __launch_bounds__(512) read_all(const uint4* from, std::size_t count, unsigned* sink) {
  unsigned any = 0;
  const std::size_t step = std::size_t{gridDim.x} * blockDim.x;
  std::size_t i = blockIdx.x * std::size_t{blockDim.x} + threadIdx.x;
  for (; i + 3 * step < count; i += 4 * step) {
    uint4 x[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) x[k] = __ldcs(&from[i + k * step]);
#pragma unroll
    for (int k = 0; k < 4; ++k) any ^= x[k].x ^ x[k].y ^ x[k].z ^ x[k].w;
  }
  if (any == 0x12345678u) *sink = any;  // never seen by the compiler, so the loads stay
}

template <bool kFp8>
__global__ void __launch_bounds__(256, 1) multiply(const std::uint8_t* random, float* sink) {
  extern __shared__ std::uint8_t raw[];
  std::uint8_t* tile =
      reinterpret_cast<std::uint8_t*>((reinterpret_cast<std::uintptr_t>(raw) + 1023) & ~std::uintptr_t{1023});
  for (int i = static_cast<int>(threadIdx.x); i < 32768; i += 256) tile[i] = random[i];
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  __syncthreads();
  const std::uint32_t a = ptx::shared_address(tile) + threadIdx.x / 128 * 8192, b = ptx::shared_address(tile) + 16384;
  float c[64];
#pragma unroll
  for (int i = 0; i < 64; ++i) c[i] = 0;
  for (int i = 0; i < kProducts / 8; ++i) {
    ptx::pin(c);
    ptx::wgmma_fence();
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      const ptx::Descriptor da = ptx::descriptor(a + k % 4 * 32, 1024, ptx::Swizzle::k128);
      const ptx::Descriptor db = ptx::descriptor(b + k % 4 * 32, 1024, ptx::Swizzle::k128);
      if constexpr (kFp8)
        ptx::wgmma_e4m3_n128(c, da, db, true);
      else
        ptx::wgmma_bf16_n128(c, da, db, true);
    }
    ptx::wgmma_commit();
    ptx::wgmma_wait<0>();
    ptx::pin(c);
  }
  float sum = 0;
#pragma unroll
  for (int i = 0; i < 64; ++i) sum += c[i];
  if (sum == 12345.f) *sink = sum;
}

template <bool kFp8>
double products_per_second(const std::uint8_t* random, float* sink) {
  const int blocks = look_at_device().multiprocessors;
  constexpr int kShared = 32768 + 1024;
  const double us = median_microseconds(
      [&](Stream stream, int) { multiply<kFp8><<<blocks, 256, kShared, stream>>>(random, sink); }, 20, 5);
  return 2.0 * 64 * 128 * (kFp8 ? 32 : 16) * kProducts * 2 * blocks / us * 1e6;
}

}  // namespace

GpuLimits measure_gpu_limits(int device) {
  if (const std::string missing = why_unusable(look_at_device(device)); !missing.empty())
    throw Error(ErrorCode::kUnavailable, missing);
  return measure_gpu_limits();
}

GpuLimits measure_gpu_limits() {
  if (const std::string missing = why_unusable(look_at_device()); !missing.empty())
    throw Error(ErrorCode::kUnavailable, missing);
  const DeviceMemory memory(kReadBytes), sink(4);
  run(FillE4m3{.out = memory.as<std::uint8_t>(), .bytes = static_cast<std::int64_t>(kReadBytes)}, nullptr);
  synchronise();
  const double us = median_microseconds(
      [&](Stream stream, int) {
        read_all<<<look_at_device().multiprocessors * 4, 512, 0, stream>>>(memory.as<uint4>(), kReadBytes / 16,
                                                                           sink.as<unsigned>());
      },
      10, 2);
  GpuLimits limits;
  int device = 0, clock_khz = 0;
  TANDEM_CUDA_CHECK(cudaGetDevice(&device));
  TANDEM_CUDA_CHECK(cudaDeviceGetAttribute(&clock_khz, cudaDevAttrClockRate, device));
  limits.gpu = look_at_device().name;
  limits.clock_mhz = clock_khz / 1000;
  limits.read_bytes_per_second = static_cast<double>(kReadBytes) / us * 1e6;
  limits.fp8_flops_per_second = products_per_second<true>(memory.as<std::uint8_t>(), sink.as<float>());
  limits.bf16_flops_per_second = products_per_second<false>(memory.as<std::uint8_t>(), sink.as<float>());
  return limits;
}

}  // namespace tandem::cuda
