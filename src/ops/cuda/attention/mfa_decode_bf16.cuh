// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The MFA kernel for a bf16 cache. Pieces and partial results are those of mfa_decode.cuh.
//
// Both math warpgroups read every page: each computes all scores of the 64 heads and half of the output columns. The
// scores are computed twice, which the tensor cores have time for, and in return nothing is exchanged and an output
// takes 64 registers a thread. Keys and values of a page are fetched and given back apart, half a page at a time: with
// queries in one term six halves are in shared memory at once, with two terms five.
// Bound by memory with one term (about 1,550 cycles of the tensor cores a page of 64 KB); two terms take twice those
// cycles, about as long as the memory. Measured: docs/performance/gpu-kernels.md.
#pragma once

#include "ops/cuda/attention/mfa_decode.cuh"
#include "ops/cuda/quad.cuh"

namespace tandem::cuda::mfa::bf16 {

inline constexpr int kHalfBytes = MfaPageBf16::kKeyBytes;  // keys, or values

template <int kTerms>
struct alignas(1024) Shared {
  static constexpr int kHalves = 7 - kTerms;
  std::uint8_t half[kHalves][kHalfBytes];
  std::uint8_t q[kTerms][MfaPageBf16::kKeyBytes];
  std::uint64_t full[kHalves], free[kHalves], q_full, q_free;
};

// Halves as they come through the ring: a page's keys, then its values.
template <int kHalves>
struct Ring {
  int stage = 0, use = 0;  // the same stage was used so often before
  __device__ void step() {
    if (++stage == kHalves) stage = 0, ++use;
  }
};

// Rows row and row + 8, columns 128 group + 8 j + 2 quad and the next.
struct Rows {
  float out[64];
  float maximum[2], sum[2];
};

template <int kTerms, class Op>
__device__ void load_queries(Shared<kTerms>& s, const Op& op, const Piece& piece, int round) {
  constexpr int kBytes = kTerms * MfaPageBf16::kKeyBytes;
  if (round > 0) ptx::wait(&s.q_free, (round - 1) & 1);
  ptx::arrive_expecting(&s.q_full, kBytes);
  ptx::bulk_load(s.q, op.q_tiles + static_cast<std::size_t>(piece.unit) * kBytes, kBytes, &s.q_full);
}

// One lane loads; the others fetch the block table ahead for it.
template <int kTerms, class Op>
__device__ void feed(Shared<kTerms>& s, const Op& op) {
  constexpr int kHalves = Shared<kTerms>::kHalves, kAhead = kHalves / 2;
  const int lane = threadIdx.x % 32;
  Ring<kHalves> ring;
  Walk<Op> walk(op);
  Piece piece = walk.next();
  for (int round = 0; piece.has_pages(); ++round, piece = walk.next()) {
    const int pages = piece.count();
    // Queries go in when the pages that the previous kernel has certainly not written are under way.
    const int settled = round == 0 ? min(min(pages, kAhead), walk.settled(piece)) : 0;
    const int queries_at = round == 0 ? settled : min(pages, kAhead) - 1;
    std::int32_t blocks = 0;
    for (int p = 0; p <= pages; ++p) {
      if (lane == 0 && p == queries_at) {
        if (round == 0) ptx::wait_for_previous_kernel();
        load_queries(s, op, piece, round);
      }
      if (p == pages) break;
      if (p % 32 == 0 && p + lane < pages) blocks = piece.table[piece.page_begin + p + lane];
      const std::int32_t block = __shfl_sync(~0u, blocks, p % 32);
      if (lane != 0) continue;
      const std::uint8_t* page = piece.pages + static_cast<std::size_t>(block) * op.page_stride;
#pragma unroll
      for (int i = 0; i < 2; ++i, ring.step()) {
        if (ring.use > 0) ptx::wait(&s.free[ring.stage], (ring.use - 1) & 1);
        ptx::arrive_expecting(&s.full[ring.stage], kHalfBytes);
        load_page(s.half[ring.stage], page + i * kHalfBytes, kHalfBytes, &s.full[ring.stage], op);
      }
    }
  }
}

// Scores times the scale (base 2) become probabilities in bf16, the A operand of the second product.
template <int kTerms>
__device__ void softmax(float (&c)[32], float scale, int begin, int end, Rows& rows, std::uint32_t (&p)[kTerms][16]) {
  mask_scores(c, begin, end);
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

// As clear_values of mfa_decode.cuh, of the group's half of the columns.
__device__ inline void clear_values(std::uint8_t* values, int group, int begin, int end) {
  const int dim = 128 * group + static_cast<int>(threadIdx.x % 128);
#pragma unroll
  for (int chunk = 0; chunk < 8; ++chunk) {  // 8 tokens of a dim each
    if (8 * chunk >= begin && 8 * chunk + 8 <= end) continue;
    uint4& tokens = *reinterpret_cast<uint4*>(values + dim * 128 + ((chunk ^ (dim & 7)) << 4));
    std::uint32_t words[4] = {tokens.x, tokens.y, tokens.z, tokens.w};
#pragma unroll
    for (int i = 0; i < 8; ++i)
      if (8 * chunk + i < begin || 8 * chunk + i >= end) words[i / 2] &= i % 2 == 0 ? 0xffff0000u : 0xffffu;
    tokens = make_uint4(words[0], words[1], words[2], words[3]);
  }
  ptx::fence_async_proxy();
  ptx::sync_threads(2 + group, 128);
}

template <int kTerms>
__device__ void add_page(Shared<kTerms>& s, ptx::Descriptor q, Ring<Shared<kTerms>::kHalves>& ring, int group,
                         float scale, int begin, int end, Rows& rows) {
  float c[32];
  ptx::wait(&s.full[ring.stage], ring.use & 1);
  const ptx::Descriptor k = ptx::descriptor(ptx::shared_address(s.half[ring.stage]), 1024, ptx::Swizzle::k128);
  ptx::pin(c);
  ptx::wgmma_fence();
#pragma unroll
  for (int term = kTerms - 1; term >= 0; --term) {  // the small term first
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      const int at = (i >> 2) * 8192 + (i & 3) * 32;
      ptx::wgmma_bf16_n64(c, q + (term * MfaPageBf16::kKeyBytes + at), k + at, term < kTerms - 1 || i > 0);
    }
  }
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();
  ptx::pin(c);
  ptx::arrive_as_warp(&s.free[ring.stage]);
  ring.step();
  std::uint32_t p[kTerms][16];
  softmax<kTerms>(c, scale, begin, end, rows, p);
  ptx::wait(&s.full[ring.stage], ring.use & 1);
  if (begin > 0 || end < MfaPage::kTokens) clear_values(s.half[ring.stage], group, begin, end);
  const ptx::Descriptor v =
      ptx::descriptor(ptx::shared_address(s.half[ring.stage]) + group * (128 * 128), 1024, ptx::Swizzle::k128);
  ptx::pin(rows.out);
  ptx::wgmma_fence();
#pragma unroll
  for (int term = kTerms - 1; term >= 0; --term)
#pragma unroll
    for (int i = 0; i < 4; ++i) ptx::wgmma_bf16_n128(rows.out, p[term] + 4 * i, v + 32 * i, true);
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();
  ptx::pin(rows.out);
  ptx::arrive_as_warp(&s.free[ring.stage]);
  ring.step();
}

template <class Op>
__device__ void end_piece(const Op& op, const Piece& piece, int group, Rows& rows) {
  const int quad = threadIdx.x & 3, row = row_of_quad();
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    rows.sum[r] = quad_sum(rows.sum[r]);
  }
  if (piece.partial < 0) {
    const float scale[2] = {1.f / rows.sum[0], 1.f / rows.sum[1]};
#pragma unroll
    for (int i = 0; i < 64; ++i) rows.out[i] *= scale[(i >> 1) & 1];
    output_of(op, piece.unit).store_half(group, rows.out);
    return;
  }
  const auto partial = partials_of(op, piece.partial);
#pragma unroll
  for (int j = 0; j < 16; ++j) partial.store(16 * group + j, &rows.out[4 * j]);
  if (group == 0 && quad == 0) {
    partial.stats[row] = make_float2(rows.maximum[0], rows.sum[0]);
    partial.stats[row + 8] = make_float2(rows.maximum[1], rows.sum[1]);
  }
}

template <int kTerms, class Op>
__device__ void compute(Shared<kTerms>& s, const Op& op, int group) {
  const float scale = op.scale * kLog2E;
  const ptx::Descriptor q = ptx::descriptor(ptx::shared_address(s.q), 1024, ptx::Swizzle::k128);
  Ring<Shared<kTerms>::kHalves> ring;
  Walk<Op> walk(op);
  Piece piece = walk.next();
  for (int round = 0; piece.has_pages(); ++round, piece = walk.next()) {
    Rows rows;
#pragma unroll
    for (int i = 0; i < 64; ++i) rows.out[i] = 0;
    rows.maximum[0] = rows.maximum[1] = kMinusInfinity;
    rows.sum[0] = rows.sum[1] = 0;
    ptx::wait(&s.q_full, round & 1);
    for (int page = piece.page_begin; page < piece.page_end; ++page) {
      const int first = page * MfaPage::kTokens;
      add_page<kTerms>(s, q, ring, group, scale, piece.token_begin - first, piece.token_end - first, rows);
    }
    ptx::arrive_as_warp(&s.q_free);
    end_piece(op, piece, group, rows);
  }
}

template <int kTerms, class Op>
__global__ void __launch_bounds__(kThreads, 1) attend(const __grid_constant__ Op op) {
  Shared<kTerms>& s = ptx::dynamic_shared<Shared<kTerms>>();
  if (threadIdx.x == 0) {
    for (int i = 0; i < Shared<kTerms>::kHalves; ++i) {
      ptx::init_barrier(&s.full[i], 1);
      ptx::init_barrier_of_warps(&s.free[i], 4 * kMathGroups);
    }
    ptx::init_barrier(&s.q_full, 1);
    ptx::init_barrier_of_warps(&s.q_free, 4 * kMathGroups);
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
    compute<kTerms>(s, op, group);
  }
}

}  // namespace tandem::cuda::mfa::bf16
