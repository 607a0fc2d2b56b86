// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The MFA kernel for an FP8 cache.
//
// Shape: per page 64 heads x 64 tokens x 256, twice; one block per multiprocessor walks pieces of sequences
// (mfa_walk.cuh). One warp feeds a ring of four pages, a page being one bulk copy; two math warpgroups take
// alternate pages of a piece and merge when it ends. All of a warpgroup's 64 x 256 output stays in registers.
//
// FP8 products are summed with about 14 bits inside the tensor core. So no sum stays there for longer than a page: the
// outputs of a page go through 64-column accumulators that are added in f32, small terms first. Because of that
// addition each page can have its own maximum, and its probabilities always use the whole range of E4M3: a sink in one
// page does not flush the others to zero.
//
// V's scale per token goes into the exponent as log2; the sum of probabilities takes its inverse out again.
//
// Bound by each warpgroup's own chain: scores, exponentials in two FP8 terms, outputs added in f32. The tensor cores
// are half busy, with about 1,000 cycles a page, and 33.5 KB a page come in time. So a group begins the scores of its
// next page while the last outputs of this one are added, and has two pages meanwhile. The ring does not stop for that:
// the next page's place is the one that the same group gave back before this page. Measured:
// docs/performance/gpu-kernels.md.
#pragma once

#include "ops/cuda/attention/mfa_walk.cuh"
#include "ops/cuda/attention/online_softmax.cuh"
#include "ops/cuda/ptx/block.cuh"
#include "ops/cuda/ptx/bulk_copy.cuh"
#include "ops/cuda/ptx/dependent_launch.cuh"
#include "ops/cuda/ptx/e4m3.cuh"
#include "ops/cuda/ptx/mbarrier.cuh"
#include "ops/cuda/ptx/wgmma.cuh"
#include "ops/cuda/quad.cuh"

namespace tandem::cuda::mfa {

inline constexpr int kStages = 4;
inline constexpr int kMathGroups = 2;
inline constexpr int kMathThreads = 128 * kMathGroups;
inline constexpr int kThreads = kMathThreads + 128;
inline constexpr int kStageBytes = (MfaPage::kBytes + 1023) / 1024 * 1024;  // the swizzle wants 1 KiB
// A ring position belongs to one math group for good, so that no group skips a phase of a barrier.
static_assert(kStages % kMathGroups == 0 && kStages >= 2 * kMathGroups);  // two for the page and the next

struct alignas(1024) Shared {
  std::uint8_t q[2][2][MfaPage::kQueryTileBytes];  // [piece % 2][term]; the piece's merge reuses it
  std::uint8_t page[kStages][kStageBytes];
  float maximum[kMathGroups][64], sum[kMathGroups][64];
  std::uint64_t page_full[kStages], page_free[kStages];
  std::uint64_t q_full[2], q_free[2];
};

// Feeder and math groups walk pieces and pages in the same order. A piece takes an even number of ring positions: its
// last may be empty.
__device__ inline int padded_pages(const Piece& piece) {
  return (piece.count() + 1) & ~1;
}

template <class Op>
__device__ void load_queries(Shared& s, const Op& op, const Piece& piece, int round) {
  const int buffer = round & 1;
  if (round > 1) ptx::wait(&s.q_free[buffer], (round / 2 - 1) & 1);
  ptx::arrive_expecting(&s.q_full[buffer], 2 * MfaPage::kQueryTileBytes);
  ptx::bulk_load(s.q[buffer], op.q_tiles + static_cast<std::size_t>(piece.unit) * 2 * MfaPage::kQueryTileBytes,
                 2 * MfaPage::kQueryTileBytes, &s.q_full[buffer]);
}

// One lane loads; the others fetch the block table ahead for it.
template <class Op>
__device__ void feed(Shared& s, const Op& op) {
  const int lane = threadIdx.x % 32;
  int position = 0;
  Walk<Op> walk(op);
  Piece piece = walk.next();
  for (int round = 0; piece.has_pages(); ++round, piece = walk.next()) {
    const int pages = piece.count(), padded = padded_pages(piece);
    // Pages that the previous kernel has certainly not written: as many as fit before anything is consumed.
    int settled = 0;
    if (round == 0)
      settled = min(min(pages, kStages), walk.settled(piece));
    else if (lane == 0)
      load_queries(s, op, piece, round);
    std::int32_t blocks = 0;
    for (int p = 0; p < padded; ++p, ++position) {
      if (p % 32 == 0 && p + lane < pages) blocks = piece.table[piece.page_begin + p + lane];
      const std::int32_t block = __shfl_sync(~0u, blocks, p % 32);
      if (lane != 0) continue;
      if (round == 0 && p == settled) {
        ptx::wait_for_previous_kernel();
        load_queries(s, op, piece, 0);
      }
      const int stage = position % kStages;
      if (position >= kStages) ptx::wait(&s.page_free[stage], (position / kStages - 1) & 1);
      if (p < pages) {
        ptx::arrive_expecting(&s.page_full[stage], MfaPage::kBytes);
        load_page(s.page[stage], piece.pages + static_cast<std::size_t>(block) * op.page_stride, MfaPage::kBytes,
                  &s.page_full[stage], op);
      } else {
        ptx::arrive(&s.page_full[stage]);
      }
    }
    if (lane == 0 && round == 0 && settled == padded) {
      ptx::wait_for_previous_kernel();
      load_queries(s, op, piece, 0);
    }
  }
}

// One math warpgroup's state. Thread: heads row and row + 8, columns 8 j + 2 quad and the next; first the 128 columns
// that the group stores when a piece ends, then those that it gives to the other group.
struct Rows {
  float out[128];
  float maximum[2], sum[2];  // base 2; sum over this thread's columns only
  __device__ void clear() {
#pragma unroll
    for (int i = 0; i < 128; ++i) out[i] = 0;
    maximum[0] = maximum[1] = kMinusInfinity;
    sum[0] = sum[1] = 0;
  }
};

__device__ inline void issue_scores(float (&c)[32], ptx::Descriptor q, ptx::Descriptor k) {
  ptx::pin(c);
  ptx::wgmma_fence();
#pragma unroll
  for (int term = 1; term >= 0; --term) {  // the small term first
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int at = (i >> 2) * 8192 + (i & 3) * 32;
      ptx::wgmma_e4m3_n64(c, q + (term * MfaPage::kQueryTileBytes + at), k + at, term == 0 || i > 0);
    }
  }
  ptx::wgmma_commit();
}

// Scores become probabilities (times 2^8, relative to the page's maximum) in two FP8 terms. Updates maximum and sum,
// rescales the output when the maximum grows, and returns in factor what this page's output is to be multiplied with.
__device__ inline void softmax(float (&c)[32], const float (&q_scale)[2], const float* scales, int begin, int end,
                               int quad, Rows& rows, std::uint32_t (&high)[8], std::uint32_t (&low)[8],
                               float (&factor)[2]) {
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    const float2 k = *reinterpret_cast<const float2*>(&scales[8 * j + 2 * quad]);
    const float2 log_v = *reinterpret_cast<const float2*>(&scales[64 + 8 * j + 2 * quad]);
    c[4 * j] = fmaf(c[4 * j], k.x * q_scale[0], log_v.x);
    c[4 * j + 1] = fmaf(c[4 * j + 1], k.y * q_scale[0], log_v.y);
    c[4 * j + 2] = fmaf(c[4 * j + 2], k.x * q_scale[1], log_v.x);
    c[4 * j + 3] = fmaf(c[4 * j + 3], k.y * q_scale[1], log_v.y);
  }
  mask_scores(c, begin, end);
  float page_maximum[2] = {kMinusInfinity, kMinusInfinity};
#pragma unroll
  for (int i = 0; i < 32; ++i) page_maximum[(i >> 1) & 1] = fmaxf(page_maximum[(i >> 1) & 1], c[i]);
  float keep[2], base[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    page_maximum[r] = quad_max(page_maximum[r]);
    base[r] = page_maximum[r] - 8.f;
    const float maximum = fmaxf(rows.maximum[r], page_maximum[r]);
    keep[r] = exp2_fast(rows.maximum[r] - maximum);
    factor[r] = exp2_fast(page_maximum[r] - maximum);
    rows.maximum[r] = maximum;
  }
  float sum[2] = {0, 0};
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    float2 inverse_v = *reinterpret_cast<const float2*>(&scales[128 + 8 * j + 2 * quad]);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float& a = c[4 * j + 2 * r];
      float& b = c[4 * j + 2 * r + 1];
      a = exp2_fast(a - base[r]);
      b = exp2_fast(b - base[r]);
      sum[r] = fmaf(a, inverse_v.x, fmaf(b, inverse_v.y, sum[r]));
    }
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) rows.sum[r] = fmaf(rows.sum[r], keep[r], sum[r] * factor[r]);
  if (__any_sync(~0u, keep[0] < 1.f || keep[1] < 1.f)) {
#pragma unroll
    for (int i = 0; i < 128; ++i) rows.out[i] *= keep[(i >> 1) & 1];
  }
#pragma unroll
  for (int t = 0; t < 4; ++t) {
    const float* x = &c[8 * t];
    high[2 * t] = ptx::to_e4m3(x[0], x[1], x[4], x[5]);
    high[2 * t + 1] = ptx::to_e4m3(x[2], x[3], x[6], x[7]);
    low[2 * t] = ptx::rest_e4m3(high[2 * t], x[0], x[1], x[4], x[5]);
    low[2 * t + 1] = ptx::rest_e4m3(high[2 * t + 1], x[2], x[3], x[6], x[7]);
  }
}

// Clears the values of tokens outside of [begin, end): a NaN there would survive a probability of 0.
__device__ inline void clear_values(std::uint8_t* page, int begin, int end, int barrier) {
  const int thread = threadIdx.x % 128;
#pragma unroll
  for (int i = 0; i < 8; ++i) {  // 16 slots of a dim each
    const int chunk = i % 4, dim = i / 4 * 128 + thread;
    uint4& slots = *reinterpret_cast<uint4*>(page + MfaPage::kKeyBytes + dim * 64 + ((chunk ^ (dim >> 1 & 3)) << 4));
    std::uint32_t words[4] = {slots.x, slots.y, slots.z, slots.w};
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      const int token = 16 * chunk + 2 * q;  // and the next, and both 8 on (mfa_page.h)
      constexpr int kTokens[4] = {0, 1, 8, 9};
#pragma unroll
      for (int e = 0; e < 4; ++e)
        if (token + kTokens[e] < begin || token + kTokens[e] >= end) words[q] &= ~(0xffu << (8 * e));
    }
    slots = make_uint4(words[0], words[1], words[2], words[3]);
  }
  ptx::fence_async_proxy();
  ptx::sync_threads(barrier, 128);
}

// 64 columns of the page's output: 64 tokens, the small term first.
__device__ inline void issue_output(float (&t)[32], const std::uint32_t (&high)[8], const std::uint32_t (&low)[8],
                                    ptx::Descriptor v) {
  ptx::pin(t);
  ptx::wgmma_fence();
  ptx::wgmma_e4m3_n64(t, low, v, false);
  ptx::wgmma_e4m3_n64(t, low + 4, v + 32, true);
  ptx::wgmma_e4m3_n64(t, high, v, true);
  ptx::wgmma_e4m3_n64(t, high + 4, v + 32, true);
  ptx::wgmma_commit();
}

template <int kChunk>
__device__ inline void promote(float (&t)[32], const float (&factor)[2], Rows& rows) {
  ptx::pin(t);
#pragma unroll
  for (int i = 0; i < 32; ++i) rows.out[32 * kChunk + i] = fmaf(t[i], factor[(i >> 1) & 1], rows.out[32 * kChunk + i]);
}

// Adds a page whose scores are on their way into c. Those of the group's next page are begun as soon as the last of
// this one's products are: begin_next does it, unless there is none.
template <class BeginNext>
__device__ inline void add_page(float (&c)[32], std::uint8_t* page, std::uint64_t* page_free, int group,
                                const float (&q_scale)[2], int begin, int end, Rows& rows,
                                const BeginNext& begin_next) {
  std::uint32_t high[8], low[8];
  float factor[2];
  ptx::wgmma_wait<0>();
  ptx::pin(c);
  softmax(c, q_scale, reinterpret_cast<const float*>(page + MfaPage::kScalesAt), begin, end, threadIdx.x & 3, rows,
          high, low, factor);
  if (begin > 0 || end < MfaPage::kTokens) clear_values(page, begin, end, 2 + group);
  constexpr int kChunkBytes = 64 * 64;
  const ptx::Descriptor v = ptx::descriptor(ptx::shared_address(page) + MfaPage::kKeyBytes, 512, ptx::Swizzle::k64);
  const ptx::Descriptor own = v + group * (2 * kChunkBytes), given = v + (1 - group) * (2 * kChunkBytes);
  float(&even)[32] = c, odd[32];
  issue_output(even, high, low, own);
  issue_output(odd, high, low, own + kChunkBytes);
  ptx::wgmma_wait<1>();
  promote<0>(even, factor, rows);
  issue_output(even, high, low, given);
  ptx::wgmma_wait<1>();
  promote<1>(odd, factor, rows);
  issue_output(odd, high, low, given + kChunkBytes);
  ptx::wgmma_wait<1>();
  promote<2>(even, factor, rows);
  begin_next();
  ptx::arrive_as_warp(page_free);  // it has read all it wanted
  promote<3>(odd, factor, rows);
}

// Gives 64 columns to the other group through give and adds its share of 64 others, which come through take.
template <int kGive, int kTake>
__device__ void exchange(Rows& rows, float scale0, float scale1, float4* give, const float4* take) {
  const int thread = threadIdx.x % 128;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const float* x = &rows.out[32 * kGive + 4 * i];
    give[i * 128 + thread] = make_float4(x[0] * scale0, x[1] * scale0, x[2] * scale1, x[3] * scale1);
  }
  ptx::sync_threads(1, kMathThreads);
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const float4 other = take[i * 128 + thread];
    float* x = &rows.out[32 * kTake + 4 * i];
    x[0] = fmaf(x[0], scale0, other.x);
    x[1] = fmaf(x[1], scale0, other.y);
    x[2] = fmaf(x[2], scale1, other.z);
    x[3] = fmaf(x[3], scale1, other.w);
  }
}

// The two groups become one result, through the memory of the piece's queries, which both have finished reading.
template <class Op>
__device__ void end_piece(Shared& s, const Op& op, const Piece& piece, int group, int buffer, Rows& rows) {
  const int quad = threadIdx.x & 3, row = row_of_quad();
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    rows.sum[r] = quad_sum(rows.sum[r]);
    if (quad == 0) {
      s.maximum[group][row + 8 * r] = rows.maximum[r];
      s.sum[group][row + 8 * r] = rows.sum[r];
    }
  }
  ptx::sync_threads(1, kMathThreads);
  const bool is_whole = piece.partial < 0;
  const auto partial = partials_of(op, is_whole ? 0 : piece.partial);  // not used if whole
  float scale[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int head = row + 8 * r;
    const float maximum = fmaxf(s.maximum[0][head], s.maximum[1][head]);
    const float sum = s.sum[0][head] * exp2_fast(s.maximum[0][head] - maximum) +
                      s.sum[1][head] * exp2_fast(s.maximum[1][head] - maximum);
    scale[r] = exp2_fast(rows.maximum[r] - maximum);
    if (is_whole) {
      scale[r] = scale[r] / sum;
    } else if (group == 0 && quad == 0) {
      partial.stats[head] = make_float2(maximum, sum);
    }
  }
  float4* give = reinterpret_cast<float4*>(s.q[buffer][group]);
  const float4* take = reinterpret_cast<const float4*>(s.q[buffer][1 - group]);
  exchange<2, 0>(rows, scale[0], scale[1], give, take);
  ptx::sync_threads(1, kMathThreads);
  exchange<3, 1>(rows, scale[0], scale[1], give, take);
  ptx::fence_async_proxy();
  ptx::arrive_as_warp(&s.q_free[buffer]);
  if (is_whole) return output_of(op, piece.unit).store_half(group, rows.out);
#pragma unroll
  for (int j = 0; j < 16; ++j) partial.store(16 * group + j, &rows.out[4 * j]);
}

template <class Op>
__device__ void compute(Shared& s, const Op& op, int group) {
  const int row = row_of_quad();
  const float scale_log2 = op.scale * kLog2E;
  Rows rows;
  int position = group;
  Walk<Op> walk(op);
  Piece piece = walk.next();
  for (int round = 0; piece.has_pages(); ++round, piece = walk.next()) {
    const int buffer = round & 1;
    const float* scales = op.q_scales + static_cast<std::size_t>(piece.unit) * MfaPage::kHeads;
    const float q_scale[2] = {scales[row] * scale_log2, scales[row + 8] * scale_log2};
    const ptx::Descriptor q = ptx::descriptor(ptx::shared_address(s.q[buffer]), 1024, ptx::Swizzle::k128);
    rows.clear();
    ptx::wait(&s.q_full[buffer], round / 2 & 1);
    // Of this group; a piece takes an even number of ring positions, the last may be empty.
    const int count = padded_pages(piece) / kMathGroups, own = count - (group == 1 && piece.count() % 2 == 1 ? 1 : 0);
    float c[32];
    const auto begin_scores = [&](int i) {
      const int at = position + kMathGroups * i, stage = at % kStages;
      ptx::wait(&s.page_full[stage], at / kStages & 1);
      issue_scores(c, q, ptx::descriptor(ptx::shared_address(s.page[stage]), 1024, ptx::Swizzle::k128));
    };
    const auto add = [&](int i, const auto& begin_next) {
      const int stage = (position + kMathGroups * i) % kStages;
      const int first = (piece.page_begin + group + kMathGroups * i) * MfaPage::kTokens;
      add_page(c, s.page[stage], &s.page_free[stage], group, q_scale, piece.token_begin - first,
               piece.token_end - first, rows, begin_next);
    };
    if (own > 0) {
      begin_scores(0);
      for (int i = 0; i + 1 < own; ++i)
        add(i, [&] {
          begin_scores(i + 1);
          ptx::wgmma_wait<1>();
        });
      add(own - 1, [] { ptx::wgmma_wait<0>(); });
    }
    if (own < count) {
      const int at = position + kMathGroups * own;
      ptx::wait(&s.page_full[at % kStages], at / kStages & 1);
      ptx::arrive_as_warp(&s.page_free[at % kStages]);
    }
    position += kMathGroups * count;
    end_piece(s, op, piece, group, buffer, rows);
  }
}

template <class Op>
__global__ void __launch_bounds__(kThreads, 1) attend(const __grid_constant__ Op op) {
  Shared& s = ptx::dynamic_shared<Shared>();
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      ptx::init_barrier(&s.page_full[i], 1);
      ptx::init_barrier_of_warps(&s.page_free[i], 4);  // the warps of the group that reads it
    }
    for (int i = 0; i < 2; ++i) {
      ptx::init_barrier(&s.q_full[i], 1);
      ptx::init_barrier_of_warps(&s.q_free[i], 4 * kMathGroups);
    }
    ptx::publish_barriers();
  }
  __syncthreads();
  const int group = ptx::warpgroup();
  if (group == kMathGroups) {
    ptx::give_registers<24>();
    if (threadIdx.x / 32 == 4 * kMathGroups) feed(s, op);
  } else {
    ptx::take_registers<240>();
    ptx::wait_for_previous_kernel();
    ptx::let_next_kernel_start();
    compute(s, op, group);
  }
}

}  // namespace tandem::cuda::mfa
