// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The MLA kernel.
//
// Shape: neighbouring blocks often walk the same pieces of sequences (mla_walk.cuh), a unit of queries each: 64 heads,
// or 32 in two terms; the second of them finds the pages in the L2 cache. A block has room for two pages. Of two math
// warpgroups the first computes the scores of the even pages, the second those of the odd ones; the 64 x 512 output
// does not fit one's registers, so the first keeps the left 256 columns and the second the right ones, and each gives
// the other its probabilities through shared memory. While one waits for its scores the other computes exponentials,
// and the second computes its own while the values of the even page are added.
//
// Maxima pass through both in page order, so both rescale alike and sums are those of pages in order.
//
// The last tile of the queries lives in registers; its memory holds the probabilities of odd pages.
//
// Bound by the tensor cores: 4,352 cycles for two pages of 64 heads, more in truth, as scores of 64 tokens read shared
// memory at its full rate. One fetch for both blocks by multicast copies was tried: on an H200 they deliver 5.8 TB/s
// from the L2 cache, and 4.1 from memory, where two plain copies deliver 9. So was a third math warpgroup for the
// scores alone, which then waits for itself. Measured: docs/performance/gpu-kernels.md.
#pragma once

#include <cuda_bf16.h>

#include "ops/cuda/attention/mla_walk.cuh"
#include "ops/cuda/attention/online_softmax.cuh"
#include "ops/cuda/ptx/block.cuh"
#include "ops/cuda/ptx/bulk_copy.cuh"
#include "ops/cuda/ptx/dependent_launch.cuh"
#include "ops/cuda/ptx/mbarrier.cuh"
#include "ops/cuda/ptx/wgmma.cuh"
#include "ops/cuda/quad.cuh"

namespace tandem::cuda::mla {

inline constexpr int kMathThreads = 256;
inline constexpr int kThreads = kMathThreads + 128;
inline constexpr int kTile = MlaPage::kTileBytes;

// A page comes in four portions of two tiles, the tile of rotated keys with the first, so that scores begin when the
// first portion is there. It goes in two parts: what one warpgroup alone reads comes first, as it is free again first.
//   even page  part 0: tiles 0-3 and 8   part 1: tiles 4-7
//   odd page   part 0: tiles 4-7 and 8   part 1: tiles 0-3
struct alignas(1024) Shared {
  std::uint8_t q[MlaPage::kBytes];
  std::uint8_t page[2][MlaPage::kBytes];
  std::uint8_t even_probabilities[kTile];
  float maximum[2][2][64];  // [pair of pages % 2][page % 2]
  float sum[2][64];
  std::uint64_t full[2][4], free[2][2];  // [page % 2][portion], [page % 2][part]
  std::uint64_t q_full, q_free, rotated_q_free;
  std::uint64_t maximum_full;          // of the even page
  std::uint64_t p_full[2], p_free[2];  // probabilities, and with them the maximum
  __device__ std::uint8_t* probabilities(int slot) { return slot == 0 ? even_probabilities : q + 8 * kTile; }
};

__device__ inline constexpr int first_tile(int slot, int portion) {
  return 4 * ((slot + portion / 2) % 2) + 2 * (portion % 2);
}

__device__ inline void feed_part(Shared& s, const std::uint8_t* page, int slot, int part) {
#pragma unroll
  for (int portion = 2 * part; portion < 2 * part + 2; ++portion) {
    const int tiles = first_tile(slot, portion) * kTile;
    std::uint64_t* full = &s.full[slot][portion];
    ptx::arrive_expecting(full, (portion == 0 ? 3 : 2) * kTile);
    ptx::bulk_load(s.page[slot] + tiles, page + tiles, 2 * kTile, full);
    if (portion == 0) ptx::bulk_load(s.page[slot] + 8 * kTile, page + 8 * kTile, kTile, full);
  }
}

// One lane loads; the others fetch the block table ahead for it.
template <class Op>
__device__ inline void feed(Shared& s, const Op& op) {
  const int lane = threadIdx.x % 32;
  int uses[2] = {0, 0};
  ptx::wait_for_previous_kernel();
  Walk<Op> walk(op);
  Piece piece = walk.next();
  for (int round = 0; piece.has_pages(); ++round, piece = walk.next()) {
    const int pages = piece.count();
    const std::uint8_t* queries = op.q_tiles + static_cast<std::size_t>(piece.unit) * MlaPage::kBytes;
    if (lane == 0) {
      if (round > 0) ptx::wait(&s.q_free, (round - 1) & 1);
      ptx::arrive_expecting(&s.q_full, MlaPage::kBytes);
      ptx::bulk_load(s.q, queries, 8 * kTile, &s.q_full);
    }
    std::int32_t blocks = 0;
    for (int p = 0; p <= pages; ++p) {
      if (lane == 0 && p == min(pages, 2)) {  // the first pages of a piece need not wait for the end of the last one
        if (round > 0) ptx::wait(&s.rotated_q_free, (round - 1) & 1);
        ptx::bulk_load(s.q + 8 * kTile, queries + 8 * kTile, kTile, &s.q_full);
      }
      if (p == pages) break;
      if (p % 32 == 0 && p + lane < pages) blocks = piece.table[piece.page_begin + p + lane];
      const std::int32_t block = __shfl_sync(~0u, blocks, p % 32);
      if (lane != 0) continue;
      const int slot = p & 1;
      const std::uint8_t* page = piece.pages + static_cast<std::size_t>(block) * op.page_stride;
#pragma unroll
      for (int part = 0; part < 2; ++part) {
        if (uses[slot] > 0) ptx::wait(&s.free[slot][part], (uses[slot] - 1) & 1);
        feed_part(s, page, slot, part);
      }
      ++uses[slot];
    }
  }
}

// One math warpgroup's state. Thread: heads row and row + 8, columns 256 group + 8 j + 2 quad and the next.
struct Rows {
  float out[128];
  float maximum[2], sum[2];         // sum over this thread's columns only
  std::uint32_t rotated_query[16];  // the last tile of the queries as A operand

  // The maximum has become another one; what was added up so far counts less.
  __device__ void rescale(const float (&next)[2]) {
    float keep[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      keep[r] = exp2_fast(maximum[r] - next[r]);
      maximum[r] = next[r];
      sum[r] *= keep[r];
    }
    if (__any_sync(~0u, keep[0] < 1.f || keep[1] < 1.f)) {
#pragma unroll
      for (int i = 0; i < 128; ++i) out[i] *= keep[(i >> 1) & 1];
    }
  }
};

template <int kSlot>
__device__ inline void scores(Shared& s, int use, const Rows& rows, float (&c)[32]) {
  const ptx::Descriptor q = ptx::descriptor(ptx::shared_address(s.q), 1024, ptx::Swizzle::k128);
  const ptx::Descriptor page = ptx::descriptor(ptx::shared_address(s.page[kSlot]), 1024, ptx::Swizzle::k128);
#pragma unroll
  for (int portion = 0; portion < 4; ++portion) {
    ptx::wait(&s.full[kSlot][portion], use & 1);
    if (portion == 0) ptx::pin(c);
    ptx::wgmma_fence();
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int at = (first_tile(kSlot, portion) + i / 4) * kTile + i % 4 * 32;
      ptx::wgmma_bf16_n64(c, q + at, page + at, portion > 0 || i > 0);
    }
    if (portion > 0) continue;
#pragma unroll
    for (int i = 0; i < 4; ++i) ptx::wgmma_bf16_n64(c, rows.rotated_query + 4 * i, page + (8 * kTile + 32 * i), true);
  }
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();
  ptx::pin(c);
}

// Tokens of a page that count.
struct Live {
  int begin, end;
  __device__ Live next_page() const { return {begin - MlaPage::kTokens, end - MlaPage::kTokens}; }
  __device__ bool has(int token) const { return token >= begin && token < end; }
  __device__ bool is_whole_page() const { return begin <= 0 && end >= MlaPage::kTokens; }
};

// A token that does not count has probability 0, which a NaN among its values would survive. A group clears the four
// tiles that it alone reads as values, when nobody needs them for scores any more.
__device__ inline void clear_values(std::uint8_t* tiles, int group, const Live& live) {
  if (live.is_whole_page()) return;
  const int thread = threadIdx.x % 128, chunk = thread % 8 * 16;
  for (int i = thread / 8; i < 4 * MlaPage::kTokens; i += 16) {
    const int tile = i / MlaPage::kTokens, token = i % MlaPage::kTokens;
    if (!live.has(token)) *reinterpret_cast<uint4*>(tiles + tile * kTile + token * 128 + chunk) = uint4{};
  }
  ptx::fence_async_proxy();
  ptx::sync_threads(2 + group, 128);
}

template <int kTerms>
__device__ inline void weights(const float (&c)[32], float scale, const float (&maximum)[2], std::uint32_t (&p)[1][16],
                               float (&sum)[2]) {
  if constexpr (kTerms == 2)
    exponentials_of_terms(c, scale, maximum[0], p[0], sum[0]);
  else
    exponentials(c, scale, maximum, p, sum);
}

__device__ inline void share_probabilities(std::uint8_t* tile, const std::uint32_t (&p)[16], int row, int quad) {
  const std::uint32_t first = MlaPage::offset(row, 2 * quad);  // columns 8 j change the chunk alone, which is xored
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    std::uint8_t* at = tile + (first ^ 16 * j);
    *reinterpret_cast<std::uint32_t*>(at) = p[2 * j];
    *reinterpret_cast<std::uint32_t*>(at + 8 * 128) = p[2 * j + 1];
  }
  ptx::fence_async_proxy();
}

// out += probabilities · four tiles of values, with the probabilities of this group (registers) …
__device__ inline void issue_values(Rows& rows, const std::uint32_t (&p)[16], std::uint32_t values) {
  const ptx::Descriptor v = ptx::descriptor_of_columns(values, 1024, kTile);
  ptx::pin(rows.out);
  ptx::wgmma_fence();
#pragma unroll
  for (int i = 0; i < 4; ++i) ptx::wgmma_bf16_n256_columns(rows.out, p + 4 * i, v + 2048 * i, true);
  ptx::wgmma_commit();
}

// … and with those of the other (shared memory).
__device__ inline void issue_values(Rows& rows, std::uint32_t probabilities, std::uint32_t values) {
  const ptx::Descriptor p = ptx::descriptor(probabilities, 1024, ptx::Swizzle::k128);
  const ptx::Descriptor v = ptx::descriptor_of_columns(values, 1024, kTile);
  ptx::pin(rows.out);
  ptx::wgmma_fence();
#pragma unroll
  for (int i = 0; i < 4; ++i) ptx::wgmma_bf16_n256_columns(rows.out, p + 32 * i, v + 2048 * i, true);
  ptx::wgmma_commit();
}

__device__ inline void finish_values(Rows& rows) {
  ptx::wgmma_wait<0>();
  ptx::pin(rows.out);
}

// Four lanes hold two columns each of four blocks of eight, 16 bytes apart in x; afterwards a block of eight each, in
// bf16.
__device__ inline uint4 gather_columns(const float* x, float scale) {
  std::uint32_t word[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) word[i] = packed_bf16(x[4 * i] * scale, x[4 * i + 1] * scale);
  transpose_in_quad(word);
  return make_uint4(word[0], word[1], word[2], word[3]);
}

// The output of a piece, normalised, or as a partial result. sum: of rows row and row + 8.
__device__ inline void store(const MlaDecode& op, const Piece& piece, int group, const Rows& rows,
                             const float (&sum)[2]) {
  const int quad = threadIdx.x & 3, row = row_of_quad();
  if (piece.partial < 0) {
    const float scale[2] = {1.f / sum[0], 1.f / sum[1]};
    std::uint16_t* out =
        op.out + (static_cast<std::size_t>(piece.unit) * 64 + row) * MlaPage::kLatent + 256 * group + 8 * quad;
#pragma unroll
    for (int j = 0; j < 32; j += 4) {
#pragma unroll
      for (int r = 0; r < 2; ++r)
        *reinterpret_cast<uint4*>(out + 8 * j + r * 8 * MlaPage::kLatent) =
            gather_columns(&rows.out[4 * j + 2 * r], scale[r]);
    }
    return;
  }
  const Partials<uint2> partial = partials_of(op, piece.partial, group);
#pragma unroll
  for (int j = 0; j < 32; ++j) partial.store(j, &rows.out[4 * j]);
  if (group == 0 && quad == 0) {
    partial.stats[row] = make_float2(rows.maximum[0], sum[0]);
    partial.stats[row + 8] = make_float2(rows.maximum[1], sum[1]);
  }
}

// Rows row and row + 8 are the two terms of one head.
__device__ inline void store(const MlaAttention& op, const Piece& piece, int group, const Rows& rows,
                             const float (&sum)[2]) {
  const int thread = threadIdx.x % 128, quad = thread & 3, row = row_of_quad(thread);
  const auto together = [&](int j, int e) { return rows.out[4 * j + e] + rows.out[4 * j + 2 + e]; };
  if (piece.partial < 0) {
    const int head = thread / 32 * MlaUnits::kTermRows + (thread % 32 >> 2);
    if (head >= op.units.heads(piece.unit % op.units.of_row())) return;
    const float scale = 1.f / sum[0];
    float* out = output_of(op, piece.unit, head) + 256 * group + 2 * quad;
#pragma unroll
    for (int j = 0; j < 32; ++j) {
      out[8 * j] = together(j, 0) * scale;
      out[8 * j + 1] = together(j, 1) * scale;
    }
    return;
  }
  const Partials<float4> partial = partials_of(op, piece.partial);
#pragma unroll
  for (int j = 0; j < 32; j += 2)
    partial.values[(16 * group + j / 2) * 128 + thread] =
        make_float4(together(j, 0), together(j, 1), together(j + 1, 0), together(j + 1, 1));
  if (group == 0 && quad == 0)
    partial.stats[row] = partial.stats[row + MlaUnits::kTermRows] = make_float2(rows.maximum[0], sum[0]);
}

template <class Op>
__device__ inline void end_piece(Shared& s, const Op& op, const Piece& piece, int group, Rows& rows) {
  const int quad = threadIdx.x & 3, row = row_of_quad();
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    rows.sum[r] = quad_sum(rows.sum[r]);
    if (quad == 0) s.sum[group][row + 8 * r] = rows.sum[r];
  }
  ptx::sync_threads(1, kMathThreads);
  const float sum[2] = {s.sum[0][row] + s.sum[1][row], s.sum[0][row + 8] + s.sum[1][row + 8]};
  store(op, piece, group, rows, sum);
  ptx::sync_threads(1, kMathThreads);  // sums are read
}

// What both groups know while they walk a piece.
struct Progress {
  float scale;             // of the scores, for base 2
  int row, quad;           // of this thread
  int uses[2] = {0, 0};    // pages that have gone through either slot
  bool last_pair = false;  // of the piece: nobody reads its queries again
};

__device__ inline void read_maximum(const Shared& s, int pair, int slot, int row, float (&maximum)[2]) {
  maximum[0] = s.maximum[pair & 1][slot][row];
  maximum[1] = s.maximum[pair & 1][slot][row + 8];
}

__device__ inline void write_maximum(Shared& s, int pair, int slot, const Progress& w, const float (&maximum)[2]) {
  if (w.quad != 0) return;
  s.maximum[pair & 1][slot][w.row] = maximum[0];
  s.maximum[pair & 1][slot][w.row + 8] = maximum[1];
}

// The first group: scores of the even page, values of both pages' left half. live: of the even page.
template <int kTerms>
__device__ inline void even_group(Shared& s, const Progress& w, const Live& live, Rows& rows) {
  const int even = w.uses[0], odd = w.uses[1];
  std::uint32_t p[1][16];
  {
    float c[32], next[2] = {rows.maximum[0], rows.maximum[1]};
    scores<0>(s, even, rows, c);
    if (w.last_pair) ptx::arrive_as_warp(&s.q_free);
    if constexpr (kTerms == 2) add_terms(c);
    mask_scores(c, live.begin, live.end);
    raise_maximum(c, w.scale, next);
    write_maximum(s, even, 0, w, next);
    ptx::arrive_as_warp(&s.maximum_full);
    rows.rescale(next);
    weights<kTerms>(c, w.scale, rows.maximum, p, rows.sum);
  }
  if (even > 0) ptx::wait(&s.p_free[0], (even - 1) & 1);
  share_probabilities(s.probabilities(0), p[0], w.row, w.quad);
  ptx::arrive_as_warp(&s.p_full[0]);
  clear_values(s.page[0], 0, live);
  issue_values(rows, p[0], ptx::shared_address(s.page[0]));
  finish_values(rows);
  ptx::arrive_as_warp(&s.free[0][0]);
  if (live.end <= MlaPage::kTokens) return;
  ptx::wait(&s.p_full[1], odd & 1);
  float next[2];
  read_maximum(s, even, 1, w.row, next);
  rows.rescale(next);
  clear_values(s.page[1], 0, live.next_page());
  issue_values(rows, ptx::shared_address(s.probabilities(1)), ptx::shared_address(s.page[1]));
  finish_values(rows);
  ptx::arrive_as_warp(&s.free[1][1]);
  ptx::arrive_as_warp(&s.p_free[1]);
}

// The second group: scores of the odd page, values of both pages' right half.
template <int kTerms>
__device__ inline void odd_group(Shared& s, const Progress& w, const Live& live, Rows& rows) {
  const int even = w.uses[0], odd = w.uses[1];
  const bool has_odd = live.end > MlaPage::kTokens;
  float c[32], maximum[2], sum[2] = {0, 0};
  std::uint32_t p[1][16];
  if (has_odd) scores<1>(s, odd, rows, c);
  if (w.last_pair) ptx::arrive_as_warp(&s.q_free);
  ptx::wait(&s.maximum_full, even & 1);
  read_maximum(s, even, 0, w.row, maximum);
  rows.rescale(maximum);
  ptx::wait(&s.p_full[0], even & 1);
  clear_values(s.page[0] + 4 * kTile, 1, live);
  issue_values(rows, ptx::shared_address(s.probabilities(0)), ptx::shared_address(s.page[0]) + 4 * kTile);
  if (has_odd) {
    if constexpr (kTerms == 2) add_terms(c);
    mask_scores(c, live.begin - MlaPage::kTokens, live.end - MlaPage::kTokens);
    raise_maximum(c, w.scale, maximum);
    write_maximum(s, even, 1, w, maximum);
    weights<kTerms>(c, w.scale, maximum, p, sum);
    if (odd > 0) ptx::wait(&s.p_free[1], (odd - 1) & 1);
    share_probabilities(s.probabilities(1), p[0], w.row, w.quad);
    ptx::arrive_as_warp(&s.p_full[1]);
  }
  finish_values(rows);
  ptx::arrive_as_warp(&s.free[0][1]);
  ptx::arrive_as_warp(&s.p_free[0]);
  if (!has_odd) return;
  rows.rescale(maximum);
  rows.sum[0] += sum[0];
  rows.sum[1] += sum[1];
  clear_values(s.page[1] + 4 * kTile, 1, live.next_page());
  issue_values(rows, p[0], ptx::shared_address(s.page[1]) + 4 * kTile);
  finish_values(rows);
  ptx::arrive_as_warp(&s.free[1][0]);
}

__device__ inline void begin_piece(Shared& s, int round, const Progress& w, Rows& rows) {
#pragma unroll
  for (int i = 0; i < 128; ++i) rows.out[i] = 0;
  rows.maximum[0] = rows.maximum[1] = kMinusInfinity;
  rows.sum[0] = rows.sum[1] = 0;
  ptx::wait(&s.q_full, round & 1);
  const std::uint8_t* tile = s.q + 8 * kTile;
#pragma unroll
  for (int i = 0; i < 16; ++i) {  // registers of step i / 4: rows row and row + 8 at k, then at k + 8
    const int head = w.row + 8 * (i & 1), k = 16 * (i >> 2) + 8 * ((i >> 1) & 1) + 2 * w.quad;
    rows.rotated_query[i] = *reinterpret_cast<const std::uint32_t*>(tile + MlaPage::offset(head, k));
  }
  ptx::sync_threads(1, kMathThreads);  // from here on the tile holds probabilities
}

template <int kGroup, class Op>
__device__ inline void compute(Shared& s, const Op& op) {
  Progress w{.scale = op.scale * kLog2E, .row = row_of_quad(), .quad = static_cast<int>(threadIdx.x) & 3};
  Rows rows;
  Walk<Op> walk(op);
  Piece piece = walk.next();
  for (int round = 0; piece.has_pages(); ++round, piece = walk.next()) {
    const int end = min(piece.token_end, piece.page_end * MlaPage::kTokens);
    begin_piece(s, round, w, rows);
    for (int token = piece.page_begin * MlaPage::kTokens; token < end; token += 2 * MlaPage::kTokens) {
      const Live live{piece.token_begin - token, end - token};
      w.last_pair = live.end <= 2 * MlaPage::kTokens;
      if constexpr (kGroup == 0)
        even_group<Op::kTerms>(s, w, live, rows);
      else
        odd_group<Op::kTerms>(s, w, live, rows);
      ++w.uses[0];
      if (live.end > MlaPage::kTokens) ++w.uses[1];
    }
    ptx::arrive_as_warp(&s.rotated_q_free);
    end_piece(s, op, piece, kGroup, rows);
  }
}

__device__ inline void init_barriers(Shared& s) {
  for (int slot = 0; slot < 2; ++slot) {
    for (int portion = 0; portion < 4; ++portion) ptx::init_barrier(&s.full[slot][portion], 1);
    for (int part = 0; part < 2; ++part) ptx::init_barrier_of_warps(&s.free[slot][part], 4);
    ptx::init_barrier_of_warps(&s.p_full[slot], 4);
    ptx::init_barrier_of_warps(&s.p_free[slot], 4);
  }
  ptx::init_barrier_of_warps(&s.maximum_full, 4);
  ptx::init_barrier(&s.q_full, 1);
  ptx::init_barrier_of_warps(&s.q_free, 8);
  ptx::init_barrier_of_warps(&s.rotated_q_free, 8);
  ptx::publish_barriers();
}

template <class Op>
__global__ void __launch_bounds__(kThreads, 1) attend(const __grid_constant__ Op op) {
  Shared& s = ptx::dynamic_shared<Shared>();
  if (threadIdx.x == 0) init_barriers(s);
  __syncthreads();
  const int group = ptx::warpgroup();
  if (group == 2) {
    ptx::give_registers<24>();
    if (threadIdx.x / 32 == 8) feed(s, op);
  } else {
    ptx::take_registers<240>();
    ptx::wait_for_previous_kernel();
    ptx::let_next_kernel_start();
    if (group == 0)
      compute<0>(s, op);
    else
      compute<1>(s, op);
  }
}

}  // namespace tandem::cuda::mla
