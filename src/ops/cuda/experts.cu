// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Routing, and moving rows to experts and back.
#include "base/check.h"
#include "ops/cuda/machine.cuh"
#include "ops/cuda/reduce.cuh"

namespace tandem::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

// ---- routing: a warp has a row, a lane every 32nd expert

constexpr int kRoutedMax = 512;

struct Candidate {
  float value;
  std::int32_t id;
};

// A tie goes to the lower id.
__device__ Candidate better(const Candidate& a, const Candidate& b) {
  return b.value > a.value || (b.value == a.value && b.id < a.id) ? b : a;
}

// NaN is less than everything, so ids stay valid whatever the row holds.
__device__ float comparable(float value) {
  return isnan(value) ? -INFINITY : value;
}

// The best choice whose bit is not in the lane's taken.
__device__ Candidate best_left(const float* choices, std::int32_t experts, std::uint32_t taken) {
  Candidate best{-INFINITY, INT_MAX};
  for (auto e = static_cast<std::int32_t>(threadIdx.x) % 32; e < experts; e += 32)
    if (!(taken >> (e / 32) & 1)) best = better(best, {comparable(choices[e]), e});
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2)
    best = better(
        best, {__shfl_xor_sync(0xffffffffu, best.value, distance), __shfl_xor_sync(0xffffffffu, best.id, distance)});
  return best;
}

struct Routing {
  std::int32_t rows, experts, k;
  bool renormalise, softmax;
  Rows<float> logits, weights;
  Rows<std::int32_t> ids;
  const float* bias;
  std::int32_t groups, groups_kept;
  float scale;
};

// The sum of a group's two best choices.
__device__ float worth(const float* choices, std::int32_t size) {
  float first = -INFINITY, second = -INFINITY;
  for (std::int32_t i = 0; i < size; ++i) {
    const float value = comparable(choices[i]);
    second = fmaxf(second, fminf(first, value));
    first = fmaxf(first, value);
  }
  return size == 1 ? first : first + second;
}

// Leaves nothing to choose outside the best groups.
__device__ void mask_groups(const Routing& r, float* choices) {
  const std::int32_t size = r.experts / r.groups;
  for (auto base = 0; base < r.groups; base += 32) {
    const std::int32_t g = base + static_cast<std::int32_t>(threadIdx.x) % 32;
    std::int32_t ahead = 0;
    if (g < r.groups) {
      const float own = worth(choices + g * size, size);
      for (std::int32_t other = 0; other < r.groups; ++other) {
        const float value = worth(choices + other * size, size);
        ahead += value > own || (value == own && other < g);
      }
    }
    __syncwarp();
    // Groups of later lanes and rounds compare with these: a masked one is behind them as it was.
    if (g < r.groups && ahead >= r.groups_kept)
      for (std::int32_t i = 0; i < size; ++i) choices[g * size + i] = -INFINITY;
    __syncwarp();
  }
}

__global__ void __launch_bounds__(kThreads) select_experts(Routing r) {
  __shared__ float all_scores[kWarps][kRoutedMax], all_choices[kWarps][kRoutedMax];
  const auto lane = static_cast<std::int32_t>(threadIdx.x) % 32, warp = static_cast<std::int32_t>(threadIdx.x) / 32;
  const auto row = static_cast<std::int32_t>(blockIdx.x) * kWarps + warp;
  if (row >= r.rows) return;
  float *scores = all_scores[warp], *choices = all_choices[warp];
  const float* logits = r.logits[row];
  float top = -INFINITY, total = 0;
  for (std::int32_t e = lane; e < r.experts; e += 32) top = fmaxf(top, logits[e]);
  top = warp_max(top);
  for (std::int32_t e = lane; e < r.experts; e += 32) {
    scores[e] = r.softmax ? expf(logits[e] - top) : 1.0f / (1.0f + expf(-logits[e]));
    total += scores[e];
  }
  total = warp_sum(total);
  for (std::int32_t e = lane; e < r.experts; e += 32)
    choices[e] = r.bias ? (r.softmax ? scores[e] / total : scores[e]) + r.bias[e] : r.softmax ? logits[e] : scores[e];
  __syncwarp();
  if (r.groups > 1) mask_groups(r, choices);
  std::uint32_t taken = 0;
  float chosen = r.softmax ? 0.0f : 1e-20f;  // sigmoids may all be zero
  for (std::int32_t j = 0; j < r.k; ++j) {
    const Candidate best = best_left(choices, r.experts, taken);
    if (best.id % 32 == lane) taken |= 1u << (best.id / 32);
    chosen += scores[best.id];
    if (lane == 0) r.ids[row][j] = best.id;
  }
  __syncwarp();
  const float divisor = r.renormalise ? chosen : r.softmax ? total : 1.0f;
  for (std::int32_t j = lane; j < r.k; j += 32) r.weights[row][j] = scores[r.ids[row][j]] / divisor * r.scale;
}

__global__ void clamp_ids(std::int32_t* out, const volatile std::int32_t* ids, std::int32_t slots, std::int32_t count) {
  const auto s = static_cast<std::int32_t>(blockIdx.x * kThreads + threadIdx.x);
  if (s >= slots) return;
  const std::int32_t id = ids[s];
  out[s] = id >= 0 && id < count ? id : 0;
}

// ---- grouping: a warp has an expert and walks over all slots, so that the order within the expert is theirs

struct Grouping {
  const std::int32_t* ids;
  const float* weights;
  std::int32_t slots, k, begin, held, count;
  std::int32_t *rows, *outputs, *offsets;
  Rows<float> grouped_weights;
};

__global__ void group_by_expert(Grouping g) {
  const int lane = threadIdx.x % 32;
  const auto expert = static_cast<std::int32_t>(blockIdx.x * kWarps + threadIdx.x / 32);
  if (expert >= g.held) return;
  const auto local = [&](std::int32_t s) { return s < g.slots ? g.ids[s] - g.begin : -1; };
  const std::uint32_t earlier_lanes = (1u << lane) - 1;
  std::int32_t place = 0;  // slots of the experts before
  for (std::int32_t base = 0; base < g.slots; base += 32) {
    const std::int32_t e = local(base + lane);
    place += __popc(__ballot_sync(0xffffffffu, e >= 0 && e < expert));
  }
  if (lane == 0) g.offsets[expert] = place;
  std::int32_t output = 0;  // slots of any expert held
  for (std::int32_t base = 0; base < g.slots; base += 32) {
    const std::int32_t e = local(base + lane);
    const std::uint32_t held = __ballot_sync(0xffffffffu, e >= 0 && e < g.held);
    const std::uint32_t mine = __ballot_sync(0xffffffffu, e == expert);
    const std::int32_t at = place + __popc(mine & earlier_lanes);
    if (e == expert && at < g.count) {
      g.rows[at] = (base + lane) / g.k;
      g.outputs[at] = output + __popc(held & earlier_lanes);
      g.grouped_weights[at][0] = g.weights[base + lane];
    }
    place += __popc(mine);
    output += __popc(held);
  }
  if (lane == 0 && expert + 1 == g.held) g.offsets[g.held] = place;
}

// ---- rows there and back: a block has a row

__global__ void gather_rows(Rows<float> out, Rows<float> x, const std::int32_t* index, std::int32_t columns) {
  const float* from = x[index[blockIdx.x]];
  for (std::int32_t c = static_cast<std::int32_t>(threadIdx.x); c < columns; c += kThreads)
    out[blockIdx.x][c] = from[c];
}

__global__ void scatter_scaled_rows(Rows<float> out, Rows<float> x, const std::int32_t* index, Rows<float> weights,
                                    std::int32_t columns) {
  float* to = out[index[blockIdx.x]];
  const float weight = weights[blockIdx.x][0];
  for (std::int32_t c = static_cast<std::int32_t>(threadIdx.x); c < columns; c += kThreads)
    to[c] = weight * x[blockIdx.x][c];
}

struct Combination {
  Rows<float> out, slots;
  std::int32_t columns, top_k;  // top_k is 0 without slots
  std::int32_t partials;
  Rows<float> partial[KSlices::kCountMax];
  std::int32_t slice_count[KSlices::kCountMax];
};

// The tree over partials, each of which is a subtree already: a binary counter of slices, as in products.
__device__ float tree_sum(const Combination& c, std::int64_t row, std::int32_t column) {
  constexpr int kLevels = 4;
  float levels[kLevels] = {};
  std::int32_t slices = 0;
  for (std::int32_t i = 0; i < c.partials; ++i) {
    float value = c.partial[i][row][column];
    bool carried = true;
#pragma unroll
    for (int level = 0; level < kLevels; ++level) {
      if (!carried || (1 << level) < c.slice_count[i]) continue;
      if (slices >> level & 1) {
        value = levels[level] + value;
      } else {
        levels[level] = value;
        carried = false;
      }
    }
    slices += c.slice_count[i];
  }
  return levels[kLevels - 1];
}

// A thread has one element: few rows still make many blocks.
__global__ void combine_experts(const __grid_constant__ Combination c) {
  const std::int64_t row = blockIdx.x;
  const auto column = static_cast<std::int32_t>(blockIdx.y * kThreads + threadIdx.x);
  if (column >= c.columns) return;
  float sum = 0;
  if (c.top_k > 0) sum = c.slots[row * c.top_k][column];
#pragma unroll 8
  for (std::int32_t j = 1; j < c.top_k; ++j) sum += c.slots[row * c.top_k + j][column];
  if (c.partials > 0) {
    const float shared = tree_sum(c, row, column);
    sum = c.top_k > 0 ? sum + shared : shared;
  }
  c.out[row][column] = sum;
}

}  // namespace

void run(Machine& machine, const SelectExperts& op) {
  const std::int64_t rows = op.logits.rows();
  if (rows == 0) return;
  TANDEM_CHECK(op.logits.shape[1] <= kRoutedMax, "more experts than the router's kernel can tell apart");
  const Routing routing{static_cast<std::int32_t>(rows),
                        static_cast<std::int32_t>(op.logits.shape[1]),
                        static_cast<std::int32_t>(op.expert_ids.shape[1]),
                        op.renormalise,
                        op.score == RouterScore::kSoftmax,
                        rows_of(op.logits),
                        rows_of(op.expert_weights),
                        {op.expert_ids.as<std::int32_t>(), op.expert_ids.row_stride},
                        op.bias ? op.bias.f32() : nullptr,
                        op.groups,
                        op.groups_kept,
                        op.scale};
  select_experts<<<static_cast<unsigned>(divide_up<std::int64_t>(rows, kWarps)), kThreads, 0, machine.stream>>>(
      routing);
  need(cudaGetLastError(), "starting select_experts");
}

void run(Machine& machine, const GroupByExpert& op) {
  const auto held = static_cast<std::int32_t>(op.offsets.shape[0] - 1);
  if (held == 0) return need(cudaMemsetAsync(op.offsets.data, 0, 4, machine.stream), "clearing offsets");
  const Grouping grouping{op.expert_ids.as<const std::int32_t>(),
                          op.expert_weights.as<const float>(),
                          static_cast<std::int32_t>(op.expert_ids.shape.elements()),
                          static_cast<std::int32_t>(op.expert_ids.shape[1]),
                          op.begin,
                          held,
                          static_cast<std::int32_t>(op.rows.shape[0]),
                          op.rows.as<std::int32_t>(),
                          op.outputs.as<std::int32_t>(),
                          op.offsets.as<std::int32_t>(),
                          rows_of(op.weights)};
  group_by_expert<<<static_cast<unsigned>(divide_up(held, kWarps)), kThreads, 0, machine.stream>>>(grouping);
  need(cudaGetLastError(), "starting group_by_expert");
}

void run(Machine& machine, const ClampIds& op) {
  const auto slots = static_cast<std::int32_t>(op.ids.shape.elements());
  if (slots == 0) return;
  clamp_ids<<<static_cast<unsigned>(divide_up(slots, kThreads)), kThreads, 0, machine.stream>>>(
      op.out.as<std::int32_t>(), op.ids.as<const std::int32_t>(), slots, op.count);
  need(cudaGetLastError(), "starting clamp_ids");
}

void run(Machine& machine, const GatherRows& op) {
  if (op.out.rows() == 0) return;
  gather_rows<<<static_cast<unsigned>(op.out.rows()), kThreads, 0, machine.stream>>>(
      rows_of(op.out), rows_of(op.x), op.index.as<const std::int32_t>(), static_cast<std::int32_t>(op.x.shape[1]));
  need(cudaGetLastError(), "starting gather_rows");
}

void run(Machine& machine, const ScatterScaledRows& op) {
  if (op.x.rows() == 0) return;
  scatter_scaled_rows<<<static_cast<unsigned>(op.x.rows()), kThreads, 0, machine.stream>>>(
      rows_of(op.out), rows_of(op.x), op.index.as<const std::int32_t>(), rows_of(op.weights),
      static_cast<std::int32_t>(op.x.shape[1]));
  need(cudaGetLastError(), "starting scatter_scaled_rows");
}

void run(Machine& machine, const CombineExperts& op) {
  if (op.out.rows() == 0) return;
  Combination c{rows_of(op.out), {}, static_cast<std::int32_t>(op.out.shape[1]), 0, 0, {}, {}};
  if (op.slot_rows) {
    c.slots = rows_of(op.slot_rows);
    c.top_k = op.top_k;
  }
  for (const Tensor& partial : op.partials) {
    c.slice_count[c.partials] = op.slice_counts[c.partials];
    c.partial[c.partials++] = rows_of(partial);
  }
  const dim3 grid(static_cast<unsigned>(op.out.rows()), static_cast<unsigned>(divide_up(c.columns, kThreads)));
  combine_experts<<<grid, kThreads, 0, machine.stream>>>(c);
  need(cudaGetLastError(), "starting combine_experts");
}

}  // namespace tandem::cuda
