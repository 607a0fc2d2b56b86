// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Routing, and moving rows to experts and back.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "ops/cpu/machine.h"

namespace tandem::cpu {

namespace {

// Inserts expert ids into a list of the k best so far. Strictly greater moves ahead, so a tie stays with the lower id;
// NaN is greater than nothing, so ids stay valid whatever the row holds.
void select(const float* logits, std::int64_t experts, std::int64_t k, std::int32_t* ids) {
  for (std::int64_t e = 0; e < experts; ++e) {
    std::int64_t place = std::min(e, k);
    while (place > 0 && logits[e] > logits[ids[place - 1]]) --place;
    if (place == k) continue;
    const std::int64_t last = std::min(e, k - 1);
    for (std::int64_t j = last; j > place; --j) ids[j] = ids[j - 1];
    ids[place] = static_cast<std::int32_t>(e);
  }
}

float weigh(const float* logits, std::int64_t experts, std::int64_t k, bool renormalise, const std::int32_t* ids,
            float* weights) {
  const float top = *std::max_element(logits, logits + experts);
  float total = 0;
  if (!renormalise)
    for (std::int64_t e = 0; e < experts; ++e) total += std::exp(logits[e] - top);
  for (std::int64_t j = 0; j < k; ++j) {
    weights[j] = std::exp(logits[ids[j]] - top);
    if (renormalise) total += weights[j];
  }
  return total;
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
  const std::int64_t experts = op.logits.shape[1], k = op.expert_ids.shape[1];
  constexpr std::int64_t kExponentialCost = 16;  // in elements
  machine.split(op.logits.rows(), kExponentialCost * experts, [&](int, std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      auto* ids = op.expert_ids.row<std::int32_t>(i);
      auto* weights = op.expert_weights.row<float>(i);
      select(op.logits.row<float>(i), experts, k, ids);
      const float total = weigh(op.logits.row<float>(i), experts, k, op.renormalise, ids, weights);
      for (std::int64_t j = 0; j < k; ++j) weights[j] /= total;
    }
  });
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
