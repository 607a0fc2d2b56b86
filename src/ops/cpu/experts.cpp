// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Routing, and moving rows to experts and back.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "ops/cpu/machine.h"

namespace tandem::cpu {

namespace {

// Inserts indices of values into a list of the k best so far. Strictly greater moves ahead, so a tie stays with the
// lower index; NaN is greater than nothing, so indices stay valid whatever the row holds.
void select(const float* values, std::int64_t count, std::int64_t k, std::int32_t* ids) {
  for (std::int64_t e = 0; e < count; ++e) {
    std::int64_t place = std::min(e, k);
    while (place > 0 && values[e] > values[ids[place - 1]]) --place;
    if (place == k) continue;
    const std::int64_t last = std::min(e, k - 1);
    for (std::int64_t j = last; j > place; --j) ids[j] = ids[j - 1];
    ids[place] = static_cast<std::int32_t>(e);
  }
}

// One thread's memory for a row.
struct RouterScratch {
  float* scores;        // [experts]
  float* choices;       // [experts]
  float* groups;        // [groups]
  std::int32_t* order;  // [groups]
};

// Scores of a row, without the softmax's division, which is returned; 1 for sigmoids.
float score(const SelectExperts& op, const float* logits, std::int64_t experts, float* scores) {
  if (op.score == RouterScore::kSigmoid) {
    for (std::int64_t e = 0; e < experts; ++e) scores[e] = 1.0f / (1.0f + std::exp(-logits[e]));
    return 1;
  }
  const float top = *std::max_element(logits, logits + experts);
  float total = 0;
  for (std::int64_t e = 0; e < experts; ++e) total += scores[e] = std::exp(logits[e] - top);
  return total;
}

// Leaves nothing to choose outside the best groups.
void mask_groups(const SelectExperts& op, std::int64_t experts, const RouterScratch& scratch) {
  const std::int64_t size = experts / op.groups;
  for (std::int32_t g = 0; g < op.groups; ++g) {
    const float* members = scratch.choices + g * size;
    std::int32_t best[2];
    select(members, size, std::min<std::int64_t>(size, 2), best);
    scratch.groups[g] = size == 1 ? members[0] : members[best[0]] + members[best[1]];
  }
  select(scratch.groups, op.groups, op.groups, scratch.order);
  for (std::int32_t g = op.groups_kept; g < op.groups; ++g)
    std::fill_n(scratch.choices + scratch.order[g] * size, size, -INFINITY);
}

void route_row(const SelectExperts& op, std::int64_t row, const RouterScratch& scratch) {
  const std::int64_t experts = op.logits.shape[1], k = op.expert_ids.shape[1];
  const float* logits = op.logits.row<float>(row);
  auto* ids = op.expert_ids.row<std::int32_t>(row);
  auto* weights = op.expert_weights.row<float>(row);
  const bool sigmoid = op.score == RouterScore::kSigmoid;
  const float total = score(op, logits, experts, scratch.scores);
  for (std::int64_t e = 0; e < experts; ++e)
    scratch.choices[e] = op.bias   ? scratch.scores[e] / total + op.bias.f32()[e]
                         : sigmoid ? scratch.scores[e]
                                   : logits[e];
  if (op.groups > 1) mask_groups(op, experts, scratch);
  select(scratch.choices, experts, k, ids);
  float chosen = sigmoid ? 1e-20f : 0;  // sigmoids may all be zero
  for (std::int64_t j = 0; j < k; ++j) chosen += scratch.scores[ids[j]];
  for (std::int64_t j = 0; j < k; ++j)
    weights[j] = scratch.scores[ids[j]] / (op.renormalise ? chosen : total) * op.scale;
}

// Adds the tree over partials, which covers count slices from partials[next] on, to or into the row.
void add_tree(const CombineExperts& op, std::int64_t row, std::size_t& next, std::int32_t count, float* level,
              float* out) {
  const std::int64_t columns = op.out.shape[1];
  if (op.slice_counts[next] == count) {
    std::memcpy(out, op.partials[next++].row<float>(row), static_cast<std::size_t>(columns) * sizeof(float));
    return;
  }
  add_tree(op, row, next, count / 2, level + columns, out);
  add_tree(op, row, next, count / 2, level + columns, level);
  for (std::int64_t c = 0; c < columns; ++c) out[c] += level[c];
}

}  // namespace

void run(Machine& machine, const SelectExperts& op) {
  const std::int64_t experts = op.logits.shape[1];
  constexpr std::int64_t kExponentialCost = 16;  // in elements
  machine.split(op.logits.rows(), kExponentialCost * experts, [&](int thread, std::int64_t begin, std::int64_t end) {
    float* scores = machine.scratch(thread, 2 * experts + 2 * op.groups);
    float* groups = scores + 2 * experts;
    const RouterScratch scratch{scores, scores + experts, groups, reinterpret_cast<std::int32_t*>(groups + op.groups)};
    for (std::int64_t i = begin; i < end; ++i) route_row(op, i, scratch);
  });
}

void run(Machine&, const ClampIds& op) {
  const auto* ids = op.ids.as<const volatile std::int32_t>();
  auto* out = op.out.as<std::int32_t>();
  for (std::int64_t s = 0; s < op.ids.shape.elements(); ++s) {
    const std::int32_t id = ids[s];
    out[s] = id >= 0 && id < op.count ? id : 0;
  }
}

void run(Machine&, const GroupByExpert& op) {
  const std::int64_t slots = op.expert_ids.shape.elements(), k = op.expert_ids.shape[1];
  const std::int64_t held = op.offsets.shape[0] - 1;
  const auto* ids = op.expert_ids.as<const std::int32_t>();
  auto* offsets = op.offsets.as<std::int32_t>();
  std::fill(offsets, offsets + held + 1, 0);
  const auto local = [&](std::int64_t slot) { return ids[slot] - op.begin; };
  const auto is_held = [&](std::int64_t slot) { return local(slot) >= 0 && local(slot) < held; };
  for (std::int64_t s = 0; s < slots; ++s)
    if (is_held(s)) ++offsets[local(s) + 1];
  for (std::int64_t e = 0; e < held; ++e) offsets[e + 1] += offsets[e];
  TANDEM_CHECK(offsets[held] == op.rows.shape[0], "output rows are not the slots of this worker's experts");
  // Each expert's offset walks to its end and is then the next one's beginning.
  std::int32_t output = 0;
  for (std::int64_t s = 0; s < slots; ++s) {
    if (!is_held(s)) continue;
    const std::int32_t place = offsets[local(s)]++;
    op.rows.as<std::int32_t>()[place] = static_cast<std::int32_t>(s / k);
    op.outputs.as<std::int32_t>()[place] = output++;
    op.weights.row<float>(place)[0] = op.expert_weights.as<const float>()[s];
  }
  std::copy_backward(offsets, offsets + held, offsets + held + 1);
  offsets[0] = 0;
}

void run(Machine& machine, const GatherRows& op) {
  const std::int64_t columns = op.x.shape[1];
  machine.split(op.out.rows(), columns, [&](int, std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      std::memcpy(op.out.row<float>(i), op.x.row<float>(op.index.as<const std::int32_t>()[i]),
                  static_cast<std::size_t>(columns) * sizeof(float));
  });
}

void run(Machine& machine, const ScatterScaledRows& op) {
  const std::int64_t columns = op.x.shape[1];
  machine.split(op.x.rows(), columns, [&](int, std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      float* out = op.out.row<float>(op.index.as<const std::int32_t>()[i]);
      const float* x = op.x.row<float>(i);
      const float weight = op.weights.row<float>(i)[0];
      for (std::int64_t c = 0; c < columns; ++c) out[c] = weight * x[c];
    }
  });
}

void run(Machine& machine, const CombineExperts& op) {
  const std::int64_t columns = op.out.shape[1];
  const std::int64_t terms = op.top_k + static_cast<std::int64_t>(op.partials.size());
  machine.split(op.out.rows(), terms * columns, [&](int thread, std::int64_t begin, std::int64_t end) {
    float* tree = machine.scratch(thread, (kSliceLevels + 1) * columns);
    for (std::int64_t i = begin; i < end; ++i) {
      float* out = op.out.row<float>(i);
      if (!op.partials.empty()) {
        std::size_t next = 0;
        add_tree(op, i, next, KSlices::kCountMax, tree + columns, tree);
      }
      if (!op.slot_rows) {
        std::memcpy(out, tree, static_cast<std::size_t>(columns) * sizeof(float));
        continue;
      }
      std::memcpy(out, op.slot_rows.row<float>(i * op.top_k), static_cast<std::size_t>(columns) * sizeof(float));
      for (std::int32_t j = 1; j < op.top_k; ++j) {
        const float* slot = op.slot_rows.row<float>(i * op.top_k + j);
        for (std::int64_t c = 0; c < columns; ++c) out[c] += slot[c];
      }
      if (op.partials.empty()) continue;
      for (std::int64_t c = 0; c < columns; ++c) out[c] += tree[c];
    }
  });
}

}  // namespace tandem::cpu
