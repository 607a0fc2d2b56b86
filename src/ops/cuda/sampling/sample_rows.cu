// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A row of logits goes to a cluster of eight blocks (row_team.cuh); an H200 has places for 528. It is read
//   once by greedy rows: the likeliest token
//   once more for sums of masses where nothing is filtered; the drawn token's segment is found among 64 sums
//   twice more with top-k or top-p: counts by distance from the top, of which the bucket follows where the kept tokens
//     end; then those up to it, at most 2048, are sorted in one block, cut and drawn from
//   five times more per filter where the kept tokens are more: histograms of ever narrower stretches of the order
//   (histogram.cuh).
// 64 rows of 151,936 on an H200: 21 us greedy, 91 with a temperature, 128 with top-k and top-p, where reading them once
// takes 9. Exponentials are in double, so that sums agree with the definition's.
#include "ops/cuda/sampling/sample_rows.h"

#include "ops/cuda/launch.cuh"
#include "ops/cuda/sampling/candidates.cuh"
#include "ops/cuda/sampling/edit_row.cuh"
#include "ops/cuda/sampling/histogram.cuh"

namespace tandem::cuda {

namespace {

// as_it_came: the view's values are the logits that were handed in.
__device__ RowFacts look_at_row(const RowTeam& team, const RowView& view, bool as_it_came) {
  constexpr int kAhead = 16;
  float best = -INFINITY;
  std::int32_t id = 0;
  bool finite = true, usual = true;
  for_each_batch<kAhead>(view, team.own_segment(), [&](const TokenBatch<kAhead>& batch) {
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
      if (!batch.there(a)) continue;
      finite = finite && isfinite(batch.stored[a]);
      usual = usual && batch.value[a] < INFINITY;  // nor NaN
      if (!(batch.value[a] > best)) continue;      // ids ascend: an equal one is not better
      best = batch.value[a];
      id = batch.id(a);
    }
  });
  RowFacts facts;
  if (as_it_came && !finite) facts.flags |= kNotFinite;
  if (!usual) facts.flags |= kUnusual;
  if (best > -INFINITY) facts.best = view.place(best, id);
  return facts;
}

__device__ SampleOutcome outcome_of(const RowFacts& facts, const SampleOrder& order) {
  if ((facts.flags & kNotFinite) != 0) return SampleOutcome::kFailed;
  if (order.masked != 0 && (facts.flags & kAllowed) == 0) return SampleOutcome::kFailed;
  if ((facts.flags & kUnusual) != 0 || facts.best == 0) return SampleOutcome::kUnusual;
  return SampleOutcome::kDrawn;
}

// Where a walk along masses passes target: at the last that has any, if rounding lets it pass none.
struct Passed {
  int index = 0;
  double before = 0;
};
__device__ Passed where_passed(const double* masses, int count, double target) {
  Passed at;
  double before = 0;
  for (int i = 0; i < count; ++i) {
    if (masses[i] > 0) {
      at = {i, before};
      if (before + masses[i] > target) break;
    }
    before += masses[i];
  }
  return at;
}

__device__ __noinline__ double mass_of(RowView view, Stretch stretch, std::uint64_t from) {
  double sum = 0;
  for_each_token(view, stretch, [&](std::int32_t id, float value, bool there) {
    if (there && view.place(value, id) >= from) sum += view.mass(value);
  });
  return warp_reduce(sum, [](double a, double b) { return a + b; });
}

// The token with which the mass passes rest; by a warp.
__device__ __noinline__ std::int32_t walk(RowView view, Stretch stretch, std::uint64_t from, double rest) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  std::int32_t found = -1, last = 0;
  double before = 0;
  for_each_token(view, stretch, [&](std::int32_t id, float value, bool there) {
    if (found >= 0) return;
    const bool in = there && view.place(value, id) >= from;
    double upto = in ? view.mass(value) : 0;
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
      const double other = __shfl_up_sync(kAllLanes, upto, distance);
      if (lane >= distance) upto += other;
    }
    if (const unsigned kept = __ballot_sync(kAllLanes, in); kept != 0)
      last = __shfl_sync(kAllLanes, id, 31 - __clz(static_cast<int>(kept)));
    if (const unsigned passed = __ballot_sync(kAllLanes, in && before + upto > rest); passed != 0)
      found = __shfl_sync(kAllLanes, id, __ffs(static_cast<int>(passed)) - 1);
    before += __shfl_sync(kAllLanes, upto, 31);
  });
  return found >= 0 ? found : last;
}

// Draws among all places from `from` on, in order of ids: which segment, which eighth of it, which token. Block 0 gets
// the token; called by all.
__device__ void draw_in_place(const RowTeam& team, const RowView& view, std::uint64_t from) {
  TeamMemory& memory = team.memory();
  const double total = weigh<Weighing::kMasses>(team, view, from);
  const double target = memory.order.uniform * total;
  const Passed segment = where_passed(memory.segments, kSegments, target);
  if (segment.index / kTeamWarps == team.rank()) {
    const int warp = static_cast<int>(threadIdx.x) / 32;
    memory.parts[warp] = mass_of(view, team.part_of(segment.index, warp), from);
    __syncthreads();
    const double rest = target - segment.before;
    const Passed part = where_passed(memory.parts, kTeamWarps, rest);
    if (part.index == warp) {
      const std::int32_t id = walk(view, team.part_of(segment.index, warp), from, rest - part.before);
      if (threadIdx.x % 32 == 0) *team.at(&memory.token, 0) = id;
    }
  }
  team.sync();
}

// Block 0 gets the token; called by all.
__device__ void draw(const RowTeam& team, const RowView& view, std::uint64_t best) {
  TeamMemory& memory = team.memory();
  const SampleOrder& order = memory.order;
  if (order.temperature == 0) {
    if (team.leads() && threadIdx.x == 0) memory.token = view.id_at(best);
    return;
  }
  std::uint64_t from = view.lowest();
  const std::uint64_t floor = order.has_min_p != 0 ? max(from, view.floor_of(view.top + order.log_min_p)) : from;
  const bool by_rank = order.top_k > 0 && order.top_k < view.vocab, by_mass = order.top_p < 1;
  if (!by_rank && !by_mass) return draw_in_place(team, view, floor);

  const double total = by_rank ? weigh<Weighing::kBuckets>(team, view, from) : weigh<Weighing::kBoth>(team, view, from);
  const Decision buckets =
      decide_buckets(team, static_cast<std::uint64_t>(by_rank ? order.top_k : 1), by_rank ? 0 : order.top_p * total);
  if (buckets.count <= kBins) {
    gather(team, view, from, buckets.bin);
    if (team.leads()) {
      sort_list(memory.list, buckets.count);
      const int kept = count_kept(memory, view, buckets.count, total, buckets.bin == kBins - 1);
      const std::int32_t id = kept > 0 ? draw_from_list(memory, view, kept) : -1;
      if (threadIdx.x == 0) {
        memory.token = id;
        memory.decision.done = kept > 0;
      }
    }
    if (team.publish().done != 0) return;
  }
  if (by_rank)
    from = select(team, view, {.from = from, .best = best, .tokens = static_cast<std::uint64_t>(order.top_k)});
  if (by_mass) from = select(team, view, {.from = from, .best = best, .tokens = 0, .share = order.top_p});
  draw_in_place(team, view, max(from, floor));
}

// Of the distribution before all filters; called by all.
__device__ __noinline__ void tell_logprobs(RowTeam team, RowView raw, TokenLogprob* out) {
  TeamMemory& memory = team.memory();
  const std::int32_t likeliest = min(memory.order.logprobs, raw.vocab);
  const std::uint64_t best = team.agree(look_at_row(team, raw, true)).best;
  raw.top = raw.value_at(best);
  const double total = likeliest > 0 ? weigh<Weighing::kBoth>(team, raw, raw.lowest())
                                     : weigh<Weighing::kMasses>(team, raw, raw.lowest());
  if (likeliest > 0) {
    const auto tokens = static_cast<std::uint64_t>(likeliest);
    const Decision buckets = decide_buckets(team, tokens, 0);
    if (buckets.count <= kBins)
      gather(team, raw, raw.lowest(), buckets.bin);
    else  // many are equal
      gather(team, raw, select(team, raw, {.from = raw.lowest(), .best = best, .tokens = tokens}), kBins - 1);
    if (team.leads()) sort_list(memory.list, memory.listed);
  }
  if (!team.leads()) return;
  const double shift = static_cast<double>(raw.top) + log(total);
  const auto entry = [&](std::int32_t id) {
    return TokenLogprob{id, static_cast<float>(static_cast<double>(__ldcg(raw.values + id)) - shift)};
  };
  __syncthreads();
  if (threadIdx.x == 0) out[0] = entry(memory.token);
  if (static_cast<std::int32_t>(threadIdx.x) < likeliest)
    out[1 + threadIdx.x] = entry(raw.id_at(memory.list[threadIdx.x]));
}

__device__ void take_order(TeamMemory& memory, const SampleOrder* orders, int row) {
  static_assert(sizeof(SampleOrder) % sizeof(std::uint32_t) == 0 && sizeof(SampleOrder) / 4 <= kTeamThreads);
  if (orders == nullptr) {
    if (threadIdx.x == 0) memory.order = SampleOrder{};
  } else if (threadIdx.x < sizeof(SampleOrder) / 4) {
    reinterpret_cast<std::uint32_t*>(&memory.order)[threadIdx.x] =
        reinterpret_cast<const std::uint32_t*>(orders + row)[threadIdx.x];
  }
  if (threadIdx.x < 16) memory.sixteenths[threadIdx.x] = exp2(threadIdx.x / 16.);
  __syncthreads();
}

__global__ void __cluster_dims__(kTeamBlocks) __launch_bounds__(kTeamThreads, 4)
    sample_rows(const __grid_constant__ SampleRows op) {
  __shared__ __align__(16) unsigned char bytes[sizeof(TeamMemory)];
  TeamMemory& memory = *reinterpret_cast<TeamMemory*>(bytes);
  const auto row = static_cast<int>(blockIdx.x) / kTeamBlocks;
  ptx::arrive_in_cluster();
  take_order(memory, op.orders, row);
  ptx::wait_for_cluster();  // all blocks have begun, so their memory may be written
  const SampleOrder& order = memory.order;
  RowTeam team(memory, op.vocab);

  const RowView raw{.values = op.logits + row * op.stride,
                    .temperature = 1,
                    .vocab = op.vocab,
                    .id_bits = op.vocab > 1 ? 32 - __clz(op.vocab - 1) : 1,
                    .top = 0,
                    .sixteenths = memory.sixteenths};
  RowView view = raw;
  if (order.temperature > 0) view.temperature = order.temperature;
  std::uint32_t flags = 0;
  if (order.edited >= 0) {
    float* work = op.work + std::int64_t{2} * op.vocab * order.edited;
    flags = edit_row(team, order, op.lists, raw, work);
    view.values = work;
  }
  RowFacts facts = look_at_row(team, view, order.edited < 0);
  facts.flags |= flags;
  facts = team.agree(facts);
  const SampleOutcome outcome = outcome_of(facts, order);
  view.top = view.value_at(facts.best);
  if (outcome == SampleOutcome::kDrawn) {
    draw(team, view, facts.best);
    if (order.logprobs >= 0) tell_logprobs(team, raw, op.logprobs + order.first_logprob);
  }
  if (team.leads() && threadIdx.x == 0) {
    const std::int32_t id = outcome == SampleOutcome::kDrawn ? memory.token : -1;
    op.found[row] = {id, outcome};
    if (op.ids) op.ids[row] = max(id, 0);
  }
}

}  // namespace

void run(const SampleRows& op, Stream stream) {
  sample_rows<<<static_cast<unsigned>(op.rows) * kTeamBlocks, kTeamThreads, 0, stream>>>(op);
  TANDEM_CUDA_CHECK(cudaGetLastError());
}

}  // namespace tandem::cuda
