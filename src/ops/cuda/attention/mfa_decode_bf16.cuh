// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The MFA decode kernel for a bf16 cache. Schedule, feeding and partial results are those of mfa_decode.cuh.
//
// Both math warpgroups read every page: each computes all scores of the 64 heads and half of the output columns. The
// scores are computed twice, which the tensor cores have time for (about 1,550 cycles a page of 64 KB), and in return
// nothing is exchanged, an output takes 64 registers a thread, and three whole pages are in flight.
// Bound by memory. Measured: docs/performance.md.
#pragma once

#include "ops/cuda/attention/mfa_decode.cuh"

namespace tandem::cuda::mfa::bf16 {

inline constexpr int kStages = 3;

struct alignas(1024) Shared {
  std::uint8_t page[kStages][MfaPageBf16::kBytes];
  std::uint8_t q[MfaPageBf16::kKeyBytes];
  std::uint64_t page_full[kStages], page_free[kStages], q_full, q_free;
};

// Rows row and row + 8, columns 128 group + 8 j + 2 quad and the next.
struct Rows {
  float out[64];
  float maximum[2], sum[2];
};

__device__ inline void load_queries(Shared& s, const MfaDecode& op, const DecodePiece& piece, int round) {
  if (round > 0) ptx::wait(&s.q_free, (round - 1) & 1);
  ptx::arrive_expecting(&s.q_full, MfaPageBf16::kKeyBytes);
  ptx::bulk_load(s.q, op.q_tiles + static_cast<std::size_t>(piece.sequence) * MfaPageBf16::kKeyBytes,
                 MfaPageBf16::kKeyBytes, &s.q_full);
}

// One lane loads; the others fetch the block table ahead for it.
__device__ inline void feed(Shared& s, const MfaDecode& op) {
  const int lane = threadIdx.x % 32;
  int position = 0;
  DecodePiece piece = piece_of_round(op, 0);
  for (int round = 0; piece.page_begin < piece.page_end; ++round, piece = piece_of_round(op, round)) {
    const std::int32_t* table = op.block_table + static_cast<std::size_t>(piece.sequence) * op.blocks_max;
    const int pages = piece.page_end - piece.page_begin;
    // Queries go in when the pages that the previous kernel has certainly not written are under way.
    int settled = 0;
    if (round == 0 && op.cache_is_settled)
      settled = min(min(pages, kStages), (op.lengths[piece.sequence] - 1) / MfaPage::kTokens - piece.page_begin);
    const int queries_at = round == 0 ? settled : min(pages, kStages) - 1;
    std::int32_t blocks = 0;
    for (int p = 0; p <= pages; ++p) {
      if (lane == 0 && p == queries_at) {
        if (round == 0) ptx::wait_for_previous_kernel();
        load_queries(s, op, piece, round);
      }
      if (p == pages) break;
      if (p % 32 == 0 && p + lane < pages) blocks = table[piece.page_begin + p + lane];
      const std::int32_t block = __shfl_sync(~0u, blocks, p % 32);
      const int stage = position % kStages, use = position / kStages;
      ++position;
      if (lane != 0) continue;
      if (use > 0) ptx::wait(&s.page_free[stage], (use - 1) & 1);
      ptx::arrive_expecting(&s.page_full[stage], MfaPageBf16::kBytes);
      ptx::bulk_load_once(s.page[stage], op.pages + static_cast<std::size_t>(block) * op.page_stride,
                          MfaPageBf16::kBytes, &s.page_full[stage]);
    }
  }
}

// Scores times the scale (base 2) become probabilities in bf16, the A operand of the second product.
__device__ inline void softmax(float (&c)[32], float scale, int tokens, Rows& rows, std::uint32_t (&p)[16]) {
  mask_scores(c, tokens);
  float maximum[2] = {rows.maximum[0], rows.maximum[1]};
  raise_maximum(c, scale, maximum);
  float keep[2], sum[2] = {0, 0};
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    keep[r] = exp2_fast(rows.maximum[r] - maximum[r]);
    rows.maximum[r] = maximum[r];
  }
  exponentials(c, scale, maximum, p, sum);
#pragma unroll
  for (int r = 0; r < 2; ++r) rows.sum[r] = fmaf(rows.sum[r], keep[r], sum[r]);
  if (__any_sync(~0u, keep[0] < 1.f || keep[1] < 1.f)) {
#pragma unroll
    for (int i = 0; i < 64; ++i) rows.out[i] *= keep[(i >> 1) & 1];
  }
}

__device__ inline void add_page(ptx::Descriptor q, std::uint32_t page, std::uint64_t* page_free, int group, float scale,
                                int tokens, Rows& rows) {
  const ptx::Descriptor k = ptx::descriptor(page, 1024, ptx::Swizzle::k128);
  float c[32];
  ptx::pin(c);
  ptx::wgmma_fence();
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    const int at = (i >> 2) * 8192 + (i & 3) * 32;
    ptx::wgmma_bf16_n64(c, q + at, k + at, i > 0);
  }
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();
  ptx::pin(c);
  std::uint32_t p[16];
  softmax(c, scale, tokens, rows, p);
  const ptx::Descriptor v = k + (MfaPageBf16::kKeyBytes + group * (128 * 128));
  ptx::pin(rows.out);
  ptx::wgmma_fence();
#pragma unroll
  for (int i = 0; i < 4; ++i) ptx::wgmma_bf16_n128(rows.out, p + 4 * i, v + 32 * i, true);
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();
  ptx::pin(rows.out);
  __syncwarp();
  if (threadIdx.x % 32 == 0) ptx::arrive(page_free);
}

__device__ inline void end_piece(const MfaDecode& op, const DecodePiece& piece, int group, Rows& rows) {
  const int thread = threadIdx.x % 128, quad = thread & 3, row = thread / 32 * 16 + (thread % 32 >> 2);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    rows.sum[r] += __shfl_xor_sync(~0u, rows.sum[r], 1);
    rows.sum[r] += __shfl_xor_sync(~0u, rows.sum[r], 2);
  }
  if (piece.partial < 0) {
    const float scale[2] = {1.f / rows.sum[0], 1.f / rows.sum[1]};
    std::uint16_t* out = op.out + (static_cast<std::size_t>(piece.sequence) * 64 + row) * 256 + 128 * group + 2 * quad;
#pragma unroll
    for (int j = 0; j < 16; ++j) {
      const float* x = &rows.out[4 * j];
      *reinterpret_cast<__nv_bfloat162*>(out + 8 * j) = __floats2bfloat162_rn(x[0] * scale[0], x[1] * scale[0]);
      *reinterpret_cast<__nv_bfloat162*>(out + 8 * j + 8 * 256) =
          __floats2bfloat162_rn(x[2] * scale[1], x[3] * scale[1]);
    }
    return;
  }
  float4* partial = reinterpret_cast<float4*>(op.work.partials + piece.partial * kDecodePartialFloats);
#pragma unroll
  for (int j = 0; j < 16; ++j)
    partial[(16 * group + j) * 128 + thread] =
        make_float4(rows.out[4 * j], rows.out[4 * j + 1], rows.out[4 * j + 2], rows.out[4 * j + 3]);
  if (group == 0 && quad == 0) {
    float2* stats = reinterpret_cast<float2*>(op.work.partial_stats) + piece.partial * 64 + row;
    stats[0] = make_float2(rows.maximum[0], rows.sum[0]);
    stats[8] = make_float2(rows.maximum[1], rows.sum[1]);
  }
}

__device__ inline void compute(Shared& s, const MfaDecode& op, int group) {
  const float scale = op.scale * kLog2E;
  const ptx::Descriptor q = ptx::descriptor(ptx::shared_address(s.q), 1024, ptx::Swizzle::k128);
  int position = 0;
  DecodePiece piece = piece_of_round(op, 0);
  for (int round = 0; piece.page_begin < piece.page_end; ++round, piece = piece_of_round(op, round)) {
    Rows rows;
#pragma unroll
    for (int i = 0; i < 64; ++i) rows.out[i] = 0;
    rows.maximum[0] = rows.maximum[1] = kMinusInfinity;
    rows.sum[0] = rows.sum[1] = 0;
    int tokens = op.lengths[piece.sequence] - piece.page_begin * MfaPage::kTokens;
    ptx::wait(&s.q_full, round & 1);
    for (int page = piece.page_begin; page < piece.page_end; ++page, ++position, tokens -= MfaPage::kTokens) {
      const int stage = position % kStages;
      ptx::wait(&s.page_full[stage], position / kStages & 1);
      add_page(q, ptx::shared_address(s.page[stage]), &s.page_free[stage], group, scale, tokens, rows);
    }
    if (threadIdx.x % 32 == 0) ptx::arrive(&s.q_free);
    end_piece(op, piece, group, rows);
  }
}

__global__ void __launch_bounds__(kThreads, 1) decode(const __grid_constant__ MfaDecode op) {
  Shared& s = ptx::dynamic_shared<Shared>();
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      ptx::init_barrier(&s.page_full[i], 1);
      ptx::init_barrier(&s.page_free[i], 4 * kMathGroups);
    }
    ptx::init_barrier(&s.q_full, 1);
    ptx::init_barrier(&s.q_free, 4 * kMathGroups);
    ptx::publish_barriers();
  }
  __syncthreads();
  const int group = ptx::warpgroup();
  if (group == kMathGroups) {
    ptx::give_registers<40>();
    if (threadIdx.x / 32 == 4 * kMathGroups) feed(s, op);
  } else {
    ptx::take_registers<232>();
    ptx::wait_for_previous_kernel();
    ptx::let_next_kernel_start();
    compute(s, op, group);
  }
}

}  // namespace tandem::cuda::mfa::bf16
