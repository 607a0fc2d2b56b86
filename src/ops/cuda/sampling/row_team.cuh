// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A row of logits belongs to a cluster of eight blocks: a team. Each of its 64 warps has one segment of the row, and
// walks it from L2 or memory as often as the choice needs. What the blocks have to agree on is left in each other's
// shared memory.
#pragma once

#include <cfloat>
#include <cstdint>

#include "ops/cuda/ptx/cluster.cuh"
#include "ops/cuda/reduce.cuh"
#include "ops/cuda/sampling/sample_rows.h"

namespace tandem::cuda {

inline constexpr int kTeamBlocks = 8;
inline constexpr int kTeamThreads = 256;  // of a block
inline constexpr int kTeamWarps = kTeamThreads / 32;
inline constexpr int kSegments = kTeamBlocks * kTeamWarps;
inline constexpr int kBins = 2048;  // of a histogram, and as many candidates can be sorted
inline constexpr int kBinsPerThread = kBins / kTeamThreads;
inline constexpr unsigned kAllLanes = 0xffffffffu;

enum RowFlag : std::uint32_t {
  kNotFinite = 1,  // a logit as it came
  kAllowed = 2,    // some token is
  kUnusual = 4,    // a logit after penalties, bias and temperature is NaN or +infinity
};

// The likeliest token of what was looked at, and flags or-ed together.
struct RowFacts {
  std::uint64_t best = 0;  // its place, see RowView
  std::uint32_t flags = 0;
};

struct Decision {
  std::uint64_t low, high;  // places
  std::uint64_t need;
  std::int32_t bin;
  std::int32_t count;
  std::int32_t done;
};

struct TeamMemory {
  std::uint32_t low[kBins], high[kBins];  // halves of a histogram of 64-bit weights
  std::uint64_t list[kBins];              // of block 0: the team's histogram, or candidates
  RowFacts facts[2][kTeamBlocks];         // taken in turn, so that one is read while the next is written
  RowFacts facts_of_warps[kTeamWarps];
  double segments[kSegments];
  double parts[kTeamWarps];
  double sixteenths[16];  // see RowView
  std::uint64_t scan[kTeamWarps];
  Decision decision;
  std::int32_t listed;  // of block 0
  std::int32_t cut;
  std::int32_t token;  // of block 0
  SampleOrder order;
};

// A row as a distribution: logits as they are, or edited, over a temperature. A token's place is its rank as one
// number, the larger the likelier, the lower id before the higher: the bits of its value in the order of floats, then
// the id's complement. Tokens that are out have -infinity and no place at or above lowest().
struct RowView {
  const float* values;
  float temperature;
  std::int32_t vocab;
  int id_bits;
  float top;                 // the largest value, once it is known
  const double* sixteenths;  // 2^(i / 16)

  __device__ static std::uint32_t rank_of(float value) {
    const std::uint32_t bits = __float_as_uint(value + 0.f);  // -0 is 0
    return bits ^ (static_cast<std::uint32_t>(static_cast<std::int32_t>(bits) >> 31) | 0x80000000u);
  }
  __device__ std::uint64_t id_mask() const { return (std::uint64_t{1} << id_bits) - 1; }
  __device__ std::uint64_t place(float value, std::int32_t id) const {
    return static_cast<std::uint64_t>(rank_of(value)) << id_bits | (id_mask() - static_cast<std::uint64_t>(id));
  }
  // The lowest place of this or a larger value.
  __device__ std::uint64_t floor_of(float value) const { return static_cast<std::uint64_t>(rank_of(value)) << id_bits; }
  __device__ std::uint64_t lowest() const { return floor_of(-FLT_MAX); }
  __device__ std::int32_t id_at(std::uint64_t place) const {
    return static_cast<std::int32_t>(id_mask() - (place & id_mask()));
  }
  __device__ static float value_of_rank(std::uint32_t rank) {
    return __uint_as_float(rank ^ ((rank & 0x80000000u) != 0 ? 0x80000000u : 0xffffffffu));
  }
  __device__ float value_at(std::uint64_t place) const {
    return value_of_rank(static_cast<std::uint32_t>(place >> id_bits));
  }
  // Probabilities are masses over their sum: e^(value - top), to the last place. Without branches, so that those of
  // several tokens are computed side by side. Below e^-700 all are e^-700, which is nothing beside the top's 1.
  __device__ double mass(float value) const {
    constexpr double kRound = 0x1.8p52, kLog2E = 0x1.71547652b82fep+0, kLn2High = 0x1.62e42fefa39efp-1,
                     kLn2Low = 0x1.abc9e3b39803fp-56;
    const double x = fmax(static_cast<double>(value) - static_cast<double>(top), -700.0);
    const double rounded = __fma_rn(x, 16 * kLog2E, kRound);  // 16 · x / ln 2 as an integer in its low bits
    const double steps = rounded - kRound;
    const int step = __double2loint(rounded);
    const double rest = __fma_rn(steps, -kLn2Low / 16, __fma_rn(steps, -kLn2High / 16, x));  // within ln 2 / 32
    double series = 1. / 5040;
    series = __fma_rn(series, rest, 1. / 720);
    series = __fma_rn(series, rest, 1. / 120);
    series = __fma_rn(series, rest, 1. / 24);
    series = __fma_rn(series, rest, 1. / 6);
    series = __fma_rn(series, rest, 1. / 2);
    series = __fma_rn(series, rest, 1.);
    series = __fma_rn(series, rest, 1.);
    const double unscaled = series * sixteenths[step & 15];
    return __hiloint2double(__double2hiint(unscaled) + (step >> 4) * (1 << 20), __double2loint(unscaled));
  }
};

struct Stretch {
  std::int32_t begin, end;
};

// A lane's tokens of a stretch, so many at a time that their loads are on their way together: base, base + 32, …
template <int kAhead>
struct TokenBatch {
  std::int32_t base, end;
  float stored[kAhead];
  float value[kAhead];

  __device__ std::int32_t id(int a) const { return base + 32 * a; }
  __device__ bool there(int a) const { return id(a) < end; }
};

// Calls each(batch) along a stretch of the row, by a warp whose lanes stay together.
template <int kAhead, class Each>
__device__ void for_each_batch(const RowView& view, Stretch stretch, const Each& each) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (std::int32_t base = stretch.begin; base < stretch.end; base += 32 * kAhead) {
    TokenBatch<kAhead> batch;
    batch.base = base + lane;
    batch.end = stretch.end;
#pragma unroll
    for (int a = 0; a < kAhead; ++a)  // from L2: edited rows were written by other blocks
      batch.stored[a] = batch.there(a) ? __ldcg(view.values + batch.id(a)) : 0.f;
#pragma unroll
    for (int a = 0; a < kAhead; ++a) batch.value[a] = batch.stored[a];
    if (view.temperature != 1) {
#pragma unroll
      for (int a = 0; a < kAhead; ++a) batch.value[a] = batch.stored[a] / view.temperature;
    }
    each(batch);
  }
}

// The same token by token: each(id, value, whether there is such a token).
template <class Each>
__device__ void for_each_token(const RowView& view, Stretch stretch, const Each& each) {
  for_each_batch<8>(view, stretch, [&](const TokenBatch<8>& batch) {
#pragma unroll
    for (int a = 0; a < 8; ++a) each(batch.id(a), batch.value[a], batch.there(a));
  });
}

class RowTeam {
 public:
  __device__ RowTeam(TeamMemory& memory, std::int32_t vocab)
      : memory_(memory),
        rank_(static_cast<int>(blockIdx.x % kTeamBlocks)),
        warp_(static_cast<int>(threadIdx.x / 32)),
        vocab_(vocab),
        segment_((vocab + kSegments * 32 - 1) / (kSegments * 32) * 32) {}

  __device__ TeamMemory& memory() const { return memory_; }
  __device__ int rank() const { return rank_; }
  __device__ bool leads() const { return rank_ == 0; }
  __device__ int thread_of_team() const { return rank_ * kTeamThreads + static_cast<int>(threadIdx.x); }
  __device__ Stretch segment(int index) const {
    return {min(index * segment_, vocab_), min((index + 1) * segment_, vocab_)};
  }
  __device__ Stretch own_segment() const { return segment(rank_ * kTeamWarps + warp_); }
  // This warp's eighth of a segment.
  __device__ Stretch part_of(int index, int warp) const {
    const Stretch whole = segment(index);
    const std::int32_t part = (segment_ + kTeamWarps * 32 - 1) / (kTeamWarps * 32) * 32;
    return {min(whole.begin + warp * part, whole.end), min(whole.begin + (warp + 1) * part, whole.end)};
  }
  template <class T>
  __device__ T* at(T* shared, int rank) const {
    return ptx::in_block(shared, rank);
  }
  __device__ void sync() const {
    __syncwarp();  // the barrier wants warps whole
    ptx::sync_cluster();
  }

  // What all threads of the team found, together.
  __device__ RowFacts agree(RowFacts mine) {
    RowFacts(&slots)[kTeamBlocks] = memory_.facts[turn_];
    turn_ ^= 1;
    mine.best = warp_reduce(mine.best, [](std::uint64_t a, std::uint64_t b) { return max(a, b); });
    mine.flags = __reduce_or_sync(kAllLanes, mine.flags);
    RowFacts(&of_warps)[kTeamWarps] = memory_.facts_of_warps;
    if (threadIdx.x % 32 == 0) of_warps[warp_] = mine;
    __syncthreads();
    if (threadIdx.x < kTeamBlocks) {
      RowFacts block;
      for (int warp = 0; warp < kTeamWarps; ++warp) block = together(block, of_warps[warp]);
      *at(&slots[rank_], static_cast<int>(threadIdx.x)) = block;
    }
    sync();
    RowFacts team;
    for (const RowFacts& block : slots) team = together(team, block);
    return team;
  }

  // Block 0's decision goes to all; called by all.
  __device__ Decision publish() const {
    __syncthreads();
    if (leads() && threadIdx.x > 0 && threadIdx.x < kTeamBlocks)
      *at(&memory_.decision, static_cast<int>(threadIdx.x)) = memory_.decision;
    sync();
    return memory_.decision;
  }

 private:
  __device__ static RowFacts together(const RowFacts& a, const RowFacts& b) {
    return {max(a.best, b.best), a.flags | b.flags};
  }
  TeamMemory& memory_;
  int rank_, warp_, turn_ = 0;
  std::int32_t vocab_, segment_;
};

// Sums of the threads before this one, and with it; by all threads of a block.
template <class T>
struct Before {
  T before, upto, total;
};
template <class T>
__device__ Before<T> scan_block(T mine, std::uint64_t* words) {
  static_assert(sizeof(T) == sizeof(std::uint64_t));
  T* totals = reinterpret_cast<T*>(words);
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  T upto = mine;
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const T other = __shfl_up_sync(kAllLanes, upto, distance);
    if (lane >= distance) upto += other;
  }
  T before = __shfl_up_sync(kAllLanes, upto, 1);
  if (lane == 0) before = T{0};
  __syncthreads();  // who scanned last has read
  if (lane == 31) totals[warp] = upto;
  __syncthreads();
  T base{0}, total{0};
  for (int w = 0; w < kTeamWarps; ++w) {
    if (w == warp) base = total;
    total += totals[w];
  }
  return {base + before, base + upto, total};
}

}  // namespace tandem::cuda
