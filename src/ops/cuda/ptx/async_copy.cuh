// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Asynchronous copies of 16 bytes by a thread from global to shared memory, and matrices from there to registers.
#pragma once

#include <cstdint>

#include "ops/cuda/ptx/mbarrier.cuh"

namespace tandem::ptx {

// Zeros where there is nothing to copy.
__device__ inline void copy_16_async(std::uint32_t shared, const void* global, bool there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(global), "r"(there ? 16 : 0)
               : "memory");
}
__device__ inline void commit_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int kInFlight>
__device__ inline void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kInFlight) : "memory");
}

// Four 8 x 8 matrices of 16-bit values, whose rows of 16 bytes lanes 8 i … 8 i + 7 name for matrix i. Lane 4 g + t gets
// of each row g, columns 2 t and 2 t + 1; transposed: of column g, rows 2 t and 2 t + 1.
__device__ inline void load_matrices(std::uint32_t (&m)[4], std::uint32_t row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(row)
               : "memory");
}
__device__ inline void load_matrices_transposed(std::uint32_t (&m)[4], std::uint32_t row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(row)
               : "memory");
}

}  // namespace tandem::ptx
