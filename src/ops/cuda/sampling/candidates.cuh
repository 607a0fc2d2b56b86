// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A few likeliest tokens in the shared memory of one block: sorted, cut by top-k, top-p and min-p, drawn from.
#pragma once

#include "ops/cuda/sampling/row_team.cuh"

namespace tandem::cuda {

// Largest first, by a bitonic network.
__device__ inline void sort_list(std::uint64_t* list, int count) {
  int size = 1;
  while (size < count) size *= 2;
  __syncthreads();
  for (int i = count + static_cast<int>(threadIdx.x); i < size; i += kTeamThreads) list[i] = 0;
  __syncthreads();
  for (int run = 2; run <= size; run *= 2)
    for (int stride = run / 2; stride > 0; stride /= 2) {
      for (int pair = static_cast<int>(threadIdx.x); pair < size / 2; pair += kTeamThreads) {
        const int i = 2 * pair - (pair & (stride - 1)), j = i + stride;
        const std::uint64_t a = list[i], b = list[j];
        if ((a < b) == ((i & run) == 0)) list[i] = b, list[j] = a;
      }
      __syncthreads();
    }
}

// Every thread has adjacent candidates. Sums of masses of the first count of them; mass_at(i) is that of candidate i.
template <class MassAt>
struct MassSums {
  int begin, end;  // this thread's candidates
  Before<double> sums;
  const MassAt& mass_at;

  __device__ MassSums(TeamMemory& memory, int count, const MassAt& mass) : mass_at(mass) {
    const int each = (count + kTeamThreads - 1) / kTeamThreads;
    begin = min(static_cast<int>(threadIdx.x) * each, count);
    end = min(begin + each, count);
    double mine = 0;
    for (int i = begin; i < end; ++i) mine += mass(i);
    sums = scan_block(mine, memory.scan);
  }
  // The first candidate whose sum with all before it satisfies reached; INT_MAX if none does.
  template <class Reached>
  __device__ int first(TeamMemory& memory, const Reached& reached) const {
    if (threadIdx.x == 0) memory.cut = INT_MAX;
    __syncthreads();
    double sum = sums.before;
    for (int i = begin; i < end; ++i) {
      sum += mass_at(i);
      if (!reached(sum)) continue;
      atomicMin(&memory.cut, i);
      break;
    }
    __syncthreads();
    const int cut = memory.cut;
    __syncthreads();
    return cut;
  }
};

// How many of the sorted candidates the filters leave; 0: the candidates are too few to tell. total: of the row's
// masses, where top-k does not make it. complete: there are no other tokens.
__device__ inline int count_kept(TeamMemory& memory, const RowView& view, int count, double total, bool complete) {
  const SampleOrder& order = memory.order;
  const bool by_rank = order.top_k > 0 && order.top_k < view.vocab;
  if (by_rank) count = min(count, order.top_k);
  if (order.top_p < 1) {
    const auto mass_at = [&](int i) { return view.mass(view.value_at(memory.list[i])); };
    const MassSums masses(memory, count, mass_at);
    const double need = order.top_p * (by_rank ? masses.sums.total : total);
    const int last = masses.first(memory, [&](double sum) { return sum >= need; });
    if (last == INT_MAX && !complete && !by_rank) return 0;
    if (last != INT_MAX) count = last + 1;
  }
  if (order.has_min_p == 0) return count;
  const std::uint64_t floor = view.floor_of(view.top + order.log_min_p);
  int kept = 0;
  for (int base = 0; base < count; base += kTeamThreads) {
    const int i = base + static_cast<int>(threadIdx.x);
    kept += __syncthreads_count(i < count && memory.list[i] >= floor);
  }
  return kept;
}

// Draws from the first count candidates by walking them in order of ids, as the definition does. All threads get the
// id.
__device__ inline std::int32_t draw_from_list(TeamMemory& memory, const RowView& view, int count) {
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kTeamThreads)  // the id's complement, then the value
    memory.list[i] = (memory.list[i] & view.id_mask()) << 32 | memory.list[i] >> view.id_bits;
  sort_list(memory.list, count);
  const auto mass_at = [&](int i) {
    return view.mass(RowView::value_of_rank(static_cast<std::uint32_t>(memory.list[i])));
  };
  const MassSums masses(memory, count, mass_at);
  const double target = memory.order.uniform * masses.sums.total;
  const int drawn = masses.first(memory, [&](double sum) { return sum > target; });
  return view.id_at(memory.list[min(drawn, count - 1)] >> 32);
}

}  // namespace tandem::cuda
