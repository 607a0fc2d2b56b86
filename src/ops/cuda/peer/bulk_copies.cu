// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// One warp a multiprocessor, of which one thread works: it keeps three blocks of 8 KB on their way: all of them have
// 3 MB, as much as a link of 450 GB/s carries in 7 microseconds. Bound by the link.
#include <algorithm>

#include "base/check.h"
#include "ops/cuda/launch_urgent.cuh"
#include "ops/cuda/peer/bulk_copies.h"
#include "ops/cuda/ptx/bulk_copy.cuh"
#include "ops/cuda/ptx/bulk_store.cuh"
#include "ops/cuda/ptx/dependent_launch.cuh"

namespace tandem::cuda {

namespace {

constexpr int kBlockBytes = 8 * 1024, kBuffers = 3, kMultiprocessors = 132;

struct Buffers {
  std::uint8_t bytes[kBuffers][kBlockBytes];
  std::uint64_t full[kBuffers];
};

__host__ __device__ inline std::int64_t blocks_of(const BulkCopies::Piece& piece) {
  return (piece.bytes + kBlockBytes - 1) / kBlockBytes;
}

// The part of a piece that is block number `block` of all of them.
__device__ inline BulkCopies::Piece part(const BulkCopies& op, std::int64_t block) {
  int p = 0;
  while (block >= blocks_of(op.pieces[p])) block -= blocks_of(op.pieces[p++]);
  const BulkCopies::Piece& piece = op.pieces[p];
  const std::int64_t at = block * kBlockBytes;
  return {piece.to + at, piece.from + at, min(piece.bytes - at, std::int64_t{kBlockBytes})};
}

__global__ void __maxnreg__(32) copy_bulk(const __grid_constant__ BulkCopies op) {
  extern __shared__ __align__(128) std::uint8_t shared[];
  Buffers& s = *reinterpret_cast<Buffers*>(shared);
  if (threadIdx.x > 0) return;
  for (std::uint64_t& full : s.full) ptx::init_barrier(&full, 1);
  ptx::publish_barriers();
  ptx::wait_for_previous_kernel();
  ptx::let_next_kernel_start();
  std::int64_t blocks = 0;
  for (const BulkCopies::Piece& piece : op.pieces) blocks += blocks_of(piece);
  const auto load = [&](int i, std::int64_t block) {
    if (block >= blocks) return;
    const BulkCopies::Piece from = part(op, block);
    ptx::arrive_expecting(&s.full[i % kBuffers], static_cast<std::uint32_t>(from.bytes));
    ptx::bulk_load(s.bytes[i % kBuffers], from.from, static_cast<std::uint32_t>(from.bytes), &s.full[i % kBuffers]);
  };
  for (int i = 0; i < kBuffers; ++i) load(i, blockIdx.x + std::int64_t{i} * gridDim.x);
  int i = 0;
  for (std::int64_t block = blockIdx.x; block < blocks; block += gridDim.x, ++i) {
    ptx::wait(&s.full[i % kBuffers], i / kBuffers & 1);
    const BulkCopies::Piece to = part(op, block);
    ptx::bulk_store(to.to, s.bytes[i % kBuffers], static_cast<std::uint32_t>(to.bytes));
    ptx::wait_until_stores_have_read();
    load(i + kBuffers, block + std::int64_t{kBuffers} * gridDim.x);
  }
  ptx::wait_for_bulk_stores();
}

}  // namespace

void run(const BulkCopies& op, Stream stream) {
  std::int64_t blocks = 0;
  for (const BulkCopies::Piece& piece : op.pieces) {
    TANDEM_CHECK(
        (piece.bytes | reinterpret_cast<std::intptr_t>(piece.to) | reinterpret_cast<std::intptr_t>(piece.from)) % 16 ==
            0,
        "bulk copies are of 16 bytes");
    blocks += blocks_of(piece);
  }
  if (blocks == 0) return;
  launch_urgent(copy_bulk, dim3(static_cast<unsigned>(std::min<std::int64_t>(blocks, kMultiprocessors))), 32,
                sizeof(Buffers), stream, op);
}

}  // namespace tandem::cuda
