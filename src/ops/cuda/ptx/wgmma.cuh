// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// WGMMA: 64 rows times n columns by a warpgroup of 128 threads, asynchronously, f32 accumulators in registers.
//
// Thread t = 32 w + l holds of a [64, n] accumulator: c[4 j + e] is row 16 w + l / 4 + 8 (e / 2), column
// 8 j + 2 (l % 4) + e % 2. Operands in shared memory are K-major and swizzled; see descriptor().
#pragma once

#include <cstdint>

#include "ops/cuda/ptx/mbarrier.cuh"
#include "ops/cuda/ptx/wgmma_operands.cuh"

namespace tandem::ptx {

enum class Swizzle : int { k128 = 1, k64 = 2, k32 = 3 };

// Where an operand lies in shared memory and how. Moving it costs one addition: descriptors are made outside of loops,
// as making one takes longer than a small product.
struct Descriptor {
  std::uint32_t low, high;
  __device__ Descriptor operator+(int bytes) const { return {low + static_cast<std::uint32_t>(bytes >> 4), high}; }
  __device__ std::uint64_t bits() const { return static_cast<std::uint64_t>(high) << 32 | low; }
};

// A tile whose rows of as many bytes as the swizzle says run along k; 8 rows make an atom, stride_bytes apart from the
// next.
__device__ inline Descriptor descriptor(std::uint32_t address, int stride_bytes, Swizzle swizzle) {
  return {(address & 0x3FFFF) >> 4 | 1u << 16,
          static_cast<std::uint32_t>(stride_bytes >> 4) | static_cast<std::uint32_t>(swizzle) << 30};
}

// The same for an operand b whose rows are k: 64 columns to a row of 128 bytes (swizzle k128), 8 rows to an atom.
// atoms_bytes: from 8 rows of k to the next 8; columns_bytes: from 64 columns to the next 64.
__device__ inline Descriptor descriptor_of_columns(std::uint32_t address, int atoms_bytes, int columns_bytes) {
  return {(address & 0x3FFFF) >> 4 | static_cast<std::uint32_t>(columns_bytes >> 4) << 16,
          static_cast<std::uint32_t>(atoms_bytes >> 4) | static_cast<std::uint32_t>(Swizzle::k128) << 30};
}

__device__ inline void wgmma_fence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ inline void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int kInFlight>
__device__ inline void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kInFlight) : "memory");
}
// Keeps the compiler from moving reads and writes of an accumulator across the point where it stands.
template <int kCount>
__device__ inline void pin(float (&c)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(c[i])::"memory");
}

// Registers move between warpgroups of a block. What all have together stays within what the block was launched with
// (for 384 threads 64,512), or who takes waits for ever.
template <int kRegisters>
__device__ inline void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ inline void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// c = a · bᵀ (+ c), E4M3, 32 of k. Sums inside the tensor core keep about 14 bits: promote often.

// Both from shared memory.
__device__ inline void wgmma_e4m3_n64(float (&c)[32], Descriptor a, Descriptor b, bool accumulate) {
  TANDEM_WGMMA(MEMORY, "m64n64k32.f32.e4m3.e4m3", TANDEM_PLACES_32, "%32", "%33", "%34", "1, 1", TANDEM_SUMS_32(0));
}

// Both from shared memory.
__device__ inline void wgmma_e4m3_n128(float (&c)[64], Descriptor a, Descriptor b, bool accumulate) {
  TANDEM_WGMMA(MEMORY, "m64n128k32.f32.e4m3.e4m3", TANDEM_PLACES_64, "%64", "%65", "%66", "1, 1", TANDEM_SUMS_64(0));
}

// a from registers: a[0] row l / 4, k 4 (l % 4) …; a[1] 8 rows on; a[2], a[3] 16 of k on.
__device__ inline void wgmma_e4m3_n64(float (&c)[32], const std::uint32_t* a, Descriptor b, bool accumulate) {
  TANDEM_WGMMA(REGISTERS, "m64n64k32.f32.e4m3.e4m3", TANDEM_PLACES_32, "{%32,%33,%34,%35}", "%36", "%37", "1, 1",
               TANDEM_SUMS_32(0));
}

// bf16, 16 of k; both from shared memory, K-major.
__device__ inline void wgmma_bf16_n128(float (&c)[64], Descriptor a, Descriptor b, bool accumulate) {
  TANDEM_WGMMA(MEMORY, "m64n128k16.f32.bf16.bf16", TANDEM_PLACES_64, "%64", "%65", "%66", "1, 1, 0, 0",
               TANDEM_SUMS_64(0));
}

// bf16, 16 of k; both from shared memory, K-major.
__device__ inline void wgmma_bf16_n64(float (&c)[32], Descriptor a, Descriptor b, bool accumulate) {
  TANDEM_WGMMA(MEMORY, "m64n64k16.f32.bf16.bf16", TANDEM_PLACES_32, "%32", "%33", "%34", "1, 1, 0, 0",
               TANDEM_SUMS_32(0));
}

// f16, 16 of k; both from shared memory, K-major.
__device__ inline void wgmma_f16_n64(float (&c)[32], Descriptor a, Descriptor b, bool accumulate) {
  TANDEM_WGMMA(MEMORY, "m64n64k16.f32.f16.f16", TANDEM_PLACES_32, "%32", "%33", "%34", "1, 1, 0, 0", TANDEM_SUMS_32(0));
}

// a from registers: a[0] row l / 4, k 2 (l % 4) …; a[1] 8 rows on; a[2], a[3] 8 of k on.
__device__ inline void wgmma_bf16_n128(float (&c)[64], const std::uint32_t* a, Descriptor b, bool accumulate) {
  TANDEM_WGMMA(REGISTERS, "m64n128k16.f32.bf16.bf16", TANDEM_PLACES_64, "{%64,%65,%66,%67}", "%68", "%69", "1, 1, 0",
               TANDEM_SUMS_64(0));
}

// a from registers, as for wgmma_bf16_n128.
__device__ inline void wgmma_bf16_n112(float (&c)[56], const std::uint32_t* a, Descriptor b, bool accumulate) {
  TANDEM_WGMMA(REGISTERS, "m64n112k16.f32.bf16.bf16", TANDEM_PLACES_56, "{%56,%57,%58,%59}", "%60", "%61", "1, 1, 0",
               TANDEM_SUMS_32(0), TANDEM_SUMS_16(32), TANDEM_SUMS_8(48));
}

// a from registers, as for wgmma_bf16_n128.
__device__ inline void wgmma_bf16_n64(float (&c)[32], const std::uint32_t* a, Descriptor b, bool accumulate) {
  TANDEM_WGMMA(REGISTERS, "m64n64k16.f32.bf16.bf16", TANDEM_PLACES_32, "{%32,%33,%34,%35}", "%36", "%37", "1, 1, 0",
               TANDEM_SUMS_32(0));
}

// bf16, 16 of k; both from shared memory, a K-major, b with its columns next to each other (descriptor_of_columns).
__device__ inline void wgmma_bf16_n256_columns(float (&c)[128], Descriptor a, Descriptor b, bool accumulate) {
  TANDEM_WGMMA(MEMORY, "m64n256k16.f32.bf16.bf16", TANDEM_PLACES_128, "%128", "%129", "%130", "1, 1, 0, 1",
               TANDEM_SUMS_64(0), TANDEM_SUMS_64(64));
}

// The same with a from registers.
__device__ inline void wgmma_bf16_n256_columns(float (&c)[128], const std::uint32_t* a, Descriptor b, bool accumulate) {
  TANDEM_WGMMA(REGISTERS, "m64n256k16.f32.bf16.bf16", TANDEM_PLACES_128, "{%128,%129,%130,%131}", "%132", "%133",
               "1, 1, 1", TANDEM_SUMS_64(0), TANDEM_SUMS_64(64));
}

}  // namespace tandem::ptx
