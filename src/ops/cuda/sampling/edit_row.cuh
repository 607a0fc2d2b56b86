// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What is allowed, penalties and bias, applied to a copy of a row.
#pragma once

#include "ops/cuda/sampling/row_team.cuh"

namespace tandem::cuda {

// Of a token: how often the answer has it, and whether the prompt does.
inline constexpr std::uint32_t kInPrompt = 1u << 31;

// Atomics on integers, so their order does not matter; called by all.
__device__ inline void mark_seen(const RowTeam& team, const SampleOrder& order, const std::uint32_t* lists,
                                 std::int32_t vocab, std::uint32_t* marks) {
  const Stretch own = team.own_segment();
  for (std::int32_t id = own.begin + static_cast<std::int32_t>(threadIdx.x) % 32; id < own.end; id += 32) marks[id] = 0;
  team.sync();
  for (auto i = static_cast<unsigned>(team.thread_of_team()); i < order.prompt.count; i += kTeamBlocks * kTeamThreads)
    if (const std::uint32_t id = lists[order.prompt.begin + i]; id < static_cast<std::uint32_t>(vocab))
      atomicOr(&marks[id], kInPrompt);
  for (auto i = static_cast<unsigned>(team.thread_of_team()); i < order.answer.count; i += kTeamBlocks * kTeamThreads)
    if (const std::uint32_t id = lists[order.answer.begin + i]; id < static_cast<std::uint32_t>(vocab))
      atomicAdd(&marks[id], 1);
  team.sync();
}

__device__ inline float penalised(const SampleOrder& order, float value, std::uint32_t mark) {
  if (mark == 0) return value;
  if (order.repetition != 1) value = value > 0 ? value / order.repetition : value * order.repetition;
  if (const std::uint32_t times = mark & ~kInPrompt; times != 0)
    value -= order.presence + order.frequency * static_cast<float>(times);
  return value;
}

// An id that stands in the list several times has its first thread add all, in their order.
__device__ inline void add_bias(const SampleOrder& order, const std::uint32_t* lists, float* edited) {
  const std::uint32_t* pairs = lists + order.bias.begin;
  for (std::uint32_t i = threadIdx.x; i < order.bias.count; i += kTeamThreads) {
    const std::uint32_t id = pairs[2 * i];
    if (i > 0 && pairs[2 * i - 2] == id) continue;
    float value = __ldcg(edited + id);
    for (std::uint32_t j = i; j < order.bias.count && pairs[2 * j] == id; ++j)
      value += __uint_as_float(pairs[2 * j + 1]);
    edited[id] = value;
  }
}

// The bits of 1,024 tokens from first on, a word to each lane: fetched together, as every fetch crosses the bus.
__device__ inline std::uint32_t allowed_of(const SampleOrder& order, const std::uint32_t* lists, std::int32_t first) {
  if (order.masked == 0) return ~0u;
  const auto word = static_cast<std::uint32_t>(first) / 32 + threadIdx.x % 32;
  return word < order.allowed.count ? lists[order.allowed.begin + word] : 0;
}

// Writes the edited row, tokens that are not allowed as -infinity; gives the flags of what this thread saw. work: 2 ·
// vocab words. Called by all.
__device__ inline std::uint32_t edit_row(const RowTeam& team, const SampleOrder& order, const std::uint32_t* lists,
                                         const RowView& raw, float* work) {
  auto* marks = reinterpret_cast<std::uint32_t*>(work + raw.vocab);
  const bool penalties = order.prompt.count + order.answer.count != 0;
  if (penalties) mark_seen(team, order, lists, raw.vocab, marks);
  std::uint32_t flags = 0;
  const Stretch own = team.own_segment();  // begins at a multiple of 32
  for (std::int32_t first = own.begin; first < own.end; first += 1024) {
    const std::uint32_t mask = allowed_of(order, lists, first);
    for_each_token(raw, {first, min(first + 1024, own.end)}, [&](std::int32_t id, float value, bool there) {
      const bool allowed = (__shfl_sync(kAllLanes, mask, (id - first) / 32 % 32) >> (id % 32) & 1) != 0;
      if (!there) return;
      if (!isfinite(value)) flags |= kNotFinite;
      if (allowed) flags |= kAllowed;
      if (penalties) value = penalised(order, value, __ldcg(marks + id));
      work[id] = allowed ? value : -INFINITY;
    });
  }
  team.sync();
  if (team.leads()) add_bias(order, lists, work);
  team.sync();
  return flags;
}

}  // namespace tandem::cuda
