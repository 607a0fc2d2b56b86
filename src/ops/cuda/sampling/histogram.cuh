// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Where in a row the likeliest tokens end, by histograms instead of sorting. Bins go from likely to unlikely.
//
// Functions that read the row are calls, not inlined, and take what they go by in registers: so a loop has no more in
// registers than it needs. Weights are integers, so that atomics in any order give one sum: counts, or masses in units
// of 2^(id_bits - 62).
#pragma once

#include "ops/cuda/sampling/row_team.cuh"

namespace tandem::cuda {

__device__ inline void clear_histogram(TeamMemory& memory) {
  for (int bin = static_cast<int>(threadIdx.x); bin < kBins; bin += kTeamThreads)
    memory.low[bin] = memory.high[bin] = 0;
  __syncthreads();
}

__device__ inline void add_to_bin(TeamMemory& memory, int bin, std::uint64_t weight) {
  const auto low = static_cast<std::uint32_t>(weight);
  const bool carry = atomicAdd(&memory.low[bin], low) + low < low;  // as each sum of two halves is a sum of all
  const std::uint32_t high = static_cast<std::uint32_t>(weight >> 32) + (carry ? 1 : 0);
  if (high != 0) atomicAdd(&memory.high[bin], high);
}

// By a warp whose lanes are together. Rows of equal logits would queue up at one bin, so a bin that all share is added
// to once.
__device__ inline void add_to_histogram(TeamMemory& memory, int bin, std::uint64_t weight, bool there) {
  const unsigned who = __ballot_sync(kAllLanes, there);
  if (who == 0) return;
  const int leader = __ffs(static_cast<int>(who)) - 1;
  const int first = __shfl_sync(kAllLanes, bin, leader);
  const bool shared = __all_sync(kAllLanes, !there || bin == first);
  if (!shared) {
    if (there) add_to_bin(memory, bin, weight);
    return;
  }
  weight = warp_reduce(there ? weight : 0, [](std::uint64_t a, std::uint64_t b) { return a + b; });
  if (static_cast<int>(threadIdx.x) % 32 == leader) add_to_bin(memory, bin, weight);
}

// The blocks' histograms become one, in block 0's list; called by all.
__device__ inline void merge_histogram(const RowTeam& team) {
  TeamMemory& memory = team.memory();
  team.sync();
  const int bin = team.thread_of_team();
  static_assert(kTeamBlocks * kTeamThreads == kBins);
  std::uint64_t sum = 0;
#pragma unroll
  for (int rank = 0; rank < kTeamBlocks; ++rank)
    sum += static_cast<std::uint64_t>(*team.at(&memory.high[bin], rank)) << 32 | *team.at(&memory.low[bin], rank);
  *team.at(&memory.list[bin], 0) = sum;
  team.sync();
}

// One thread calls found(bin, sum before it, its value) for the first bin with which the sum reaches need; none does
// when all together don't. By all threads of a block; gives the sum of all bins.
template <class T, class ValueOf, class Found>
__device__ T first_reaching(TeamMemory& memory, T need, const ValueOf& value_of, const Found& found) {
  const int first = static_cast<int>(threadIdx.x) * kBinsPerThread;
  T mine{0};
  for (int i = 0; i < kBinsPerThread; ++i) mine += value_of(first + i);
  const Before<T> sums = scan_block(mine, memory.scan);
  if ((threadIdx.x == 0 || sums.before < need) && sums.upto >= need) {
    T before = sums.before;
    int bin = first;
    for (; bin < first + kBinsPerThread - 1 && before + value_of(bin) < need; ++bin) before += value_of(bin);
    found(bin, before, value_of(bin));
  }
  return sums.total;
}

// Buckets of the distance from the largest value: 64 to an octave, from 2^-8 to 2^24, so that their width suits logits
// of any scale. Equal or smaller values have equal or larger buckets.
inline constexpr int kFirstBucketBits = (127 - 8) << 6;
__device__ inline int bucket_of(float distance) {
  const int bits = static_cast<int>(__float_as_uint(distance) >> 17);
  return min(max(bits - kFirstBucketBits + 1, 0), kBins - 1);
}
// The distance in the middle of the bucket, from which masses are estimated.
__device__ inline double middle_of(int bucket) {
  const auto bits = static_cast<unsigned>(bucket + kFirstBucketBits) << 17;  // where the next bucket begins
  return static_cast<double>(__uint_as_float(bits - (1u << 16)));
}

enum class Weighing {
  kMasses,   // into every block's segments
  kBuckets,  // counts of them into block 0's list
  kBoth,
};

// Of tokens from the place `from` on. Gives the sum of masses when they are asked for; called by all.
template <Weighing kWhat>
__device__ __noinline__ double weigh(RowTeam team, RowView view, std::uint64_t from) {
  constexpr bool kMasses = kWhat != Weighing::kBuckets, kBuckets = kWhat != Weighing::kMasses;
  TeamMemory& memory = team.memory();
  if constexpr (kBuckets) clear_histogram(memory);
  double sum = 0;
  for_each_batch<8>(view, team.own_segment(), [&](const TokenBatch<8>& batch) {
    bool in[8];
#pragma unroll
    for (int a = 0; a < 8; ++a) in[a] = batch.there(a) && view.place(batch.value[a], batch.id(a)) >= from;
    if constexpr (kMasses) {
      double masses[8];
#pragma unroll
      for (int a = 0; a < 8; ++a) masses[a] = view.mass(batch.value[a]);
#pragma unroll
      for (int a = 0; a < 8; ++a) sum += in[a] ? masses[a] : 0;
    }
    if constexpr (kBuckets) {
#pragma unroll
      for (int a = 0; a < 8; ++a) add_to_histogram(memory, bucket_of(view.top - batch.value[a]), 1, in[a]);
    }
  });
  if constexpr (kMasses) {
    sum = warp_reduce(sum, [](double a, double b) { return a + b; });
    const int lane = static_cast<int>(threadIdx.x) % 32;
    if (lane < kTeamBlocks) *team.at(&memory.segments[team.thread_of_team() / 32], lane) = sum;
  }
  if constexpr (kBuckets)
    merge_histogram(team);
  else
    team.sync();
  double total = 0;
  if constexpr (kMasses)
    for (const double segment : memory.segments) total += segment;
  return total;
}

// Up to which bucket the likeliest tokens are, by the buckets' counts: so many tokens, or, where mass is above 0,
// probably so much of it: masses are estimated, and one bucket more is taken. Decision.bin and the count up to it;
// called by all, after weigh.
__device__ inline Decision decide_buckets(const RowTeam& team, std::uint64_t tokens, double mass) {
  TeamMemory& memory = team.memory();
  if (team.leads()) {
    if (threadIdx.x == 0) {
      memory.decision = {.bin = kBins - 1, .count = 0};
      memory.listed = 0;
    }
    __syncthreads();
    if (mass > 0)
      first_reaching<double>(
          memory, mass, [&](int bin) { return static_cast<double>(memory.list[bin]) * exp(-middle_of(bin)); },
          [&](int bin, double, double) { memory.decision.bin = min(bin + 1, kBins - 1); });
    else
      first_reaching<std::uint64_t>(
          memory, tokens, [&](int bin) { return memory.list[bin]; },
          [&](int bin, std::uint64_t, std::uint64_t) { memory.decision.bin = bin; });
    __syncthreads();
    const int last = memory.decision.bin;
    int count = 0;
    for (int bin = static_cast<int>(threadIdx.x); bin <= last; bin += kTeamThreads)
      count += static_cast<int>(memory.list[bin]);
    atomicAdd(&memory.decision.count, count);
  }
  return team.publish();
}

// Block 0's list gets the places from `from` on in buckets up to `bucket`, in no order; there are at most kBins of
// them.
__device__ __noinline__ inline void gather(RowTeam team, RowView view, std::uint64_t from, int bucket) {
  TeamMemory& memory = team.memory();
  std::uint64_t* list = team.at(memory.list, 0);
  std::int32_t* listed = team.at(&memory.listed, 0);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for_each_token(view, team.own_segment(), [&](std::int32_t id, float value, bool there) {
    const std::uint64_t place = view.place(value, id);
    const bool in = there && place >= from && bucket_of(view.top - value) <= bucket;
    const unsigned who = __ballot_sync(kAllLanes, in);
    if (who == 0) return;
    const int leader = __ffs(static_cast<int>(who)) - 1;
    int slot = lane == leader ? atomicAdd(listed, __popc(who)) : 0;
    slot = __shfl_sync(kAllLanes, slot, leader) + __popc(who & ((1u << lane) - 1));
    if (in && slot < kBins) list[slot] = place;
  });
  team.sync();
}

// What select looks for: the smallest set of likeliest tokens that has so many, or so large a share of the mass.
struct Selection {
  std::uint64_t from, best;  // among these places
  std::uint64_t tokens;      // 0: by mass
  double share;
};

// Block 0 looks into the merged histogram of places [low, high], 2^shift to a bin.
__device__ inline void narrow(TeamMemory& memory, const Selection& what, bool first, int shift) {
  const auto value_of = [&](int bin) { return memory.list[bin]; };
  Decision& d = memory.decision;
  if (first && what.tokens == 0) {
    const std::uint64_t total =
        first_reaching<std::uint64_t>(memory, 0, value_of, [](int, std::uint64_t, std::uint64_t) {});
    if (threadIdx.x == 0)
      d.need = max(std::uint64_t{1}, static_cast<std::uint64_t>(ceil(what.share * static_cast<double>(total))));
  }
  __syncthreads();
  const Decision old = d;
  __syncthreads();
  if (threadIdx.x == 0) {
    d.done = 1;  // unless the next finds a bin: all are in
    memory.listed = 0;
  }
  __syncthreads();
  first_reaching<std::uint64_t>(memory, old.need, value_of, [&](int bin, std::uint64_t before, std::uint64_t value) {
    const std::uint64_t span = (std::uint64_t{1} << shift) - 1;
    d.high = old.high - (static_cast<std::uint64_t>(bin) << shift);
    d.low = d.high - old.low > span ? d.high - span : old.low;
    d.need = old.need - before;
    d.done = shift == 0 || d.need == value;  // one token, or all of the bin
  });
}

// The lowest place of the set. Each round looks at the places between two, in 2048 bins; called by all.
__device__ __noinline__ inline std::uint64_t select(RowTeam team, RowView view, Selection what) {
  TeamMemory& memory = team.memory();
  const double unit = exp2(static_cast<double>(62 - view.id_bits));
  Decision d{.low = what.from, .high = what.best, .need = what.tokens, .done = 0};
  __syncthreads();  // who published last has read
  if (team.leads() && threadIdx.x == 0) memory.decision = d;
  for (bool first = true; d.done == 0; first = false) {
    const int shift = max(0, 64 - __clzll(static_cast<long long>(d.high - d.low)) - 11);
    clear_histogram(memory);
    for_each_token(view, team.own_segment(), [&](std::int32_t id, float value, bool there) {
      const std::uint64_t place = view.place(value, id);
      const bool in = there && place >= d.low && place <= d.high;
      std::uint64_t weight = 1;
      if (what.tokens == 0 && in) weight = __double2ull_rn(view.mass(value) * unit);
      add_to_histogram(memory, in ? static_cast<int>((d.high - place) >> shift) : 0, weight, in);
    });
    merge_histogram(team);
    if (team.leads()) narrow(memory, what, first, shift);
    d = team.publish();
  }
  return d.low;
}

}  // namespace tandem::cuda
