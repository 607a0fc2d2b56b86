// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Routing, and moving rows to experts and back.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "ops/reference/reference.h"

namespace tandem::reference {

namespace {

// The indices of values, largest first, equal ones in order. NaN compares equal to everything, which keeps a broken row
// from breaking the order's rules.
std::vector<std::int32_t> largest_first(const std::vector<float>& values) {
  std::vector<std::int32_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) { return values[a] > values[b]; });
  return order;
}

// Leaves nothing to choose outside the best groups.
void mask_groups(const SelectExperts& op, std::vector<float>& choices) {
  const std::int64_t size = static_cast<std::int64_t>(choices.size()) / op.groups;
  std::vector<float> groups;
  for (std::int32_t g = 0; g < op.groups; ++g) {
    const auto begin = choices.begin() + g * size;
    const std::vector<float> members(begin, begin + size);
    const std::vector<std::int32_t> order = largest_first(members);
    groups.push_back(size == 1 ? members[0] : members[order[0]] + members[order[1]]);
  }
  const std::vector<std::int32_t> order = largest_first(groups);
  for (std::int32_t g = op.groups_kept; g < op.groups; ++g)
    std::fill_n(choices.begin() + order[g] * size, size, -INFINITY);
}

}  // namespace

void run(const SelectExperts& op) {
  const std::int64_t experts = op.logits.shape[1], k = op.expert_ids.shape[1];
  const bool softmax = op.score == RouterScore::kSoftmax;
  std::vector<float> scores(experts), choices(experts);
  for (std::int64_t i = 0; i < op.logits.rows(); ++i) {
    const float* logits = op.logits.row<float>(i);
    const float top = *std::max_element(logits, logits + experts);
    float total = 0;  // of the softmax
    for (std::int64_t e = 0; e < experts; ++e) {
      scores[e] = softmax ? std::exp(logits[e] - top) : 1.0f / (1.0f + std::exp(-logits[e]));
      total += scores[e];
    }
    for (std::int64_t e = 0; e < experts; ++e)
      choices[e] =
          op.bias ? (softmax ? scores[e] / total : scores[e]) + op.bias.f32()[e] : (softmax ? logits[e] : scores[e]);
    if (op.groups > 1) mask_groups(op, choices);
    const std::vector<std::int32_t> order = largest_first(choices);
    float chosen = softmax ? 0 : 1e-20f;  // sigmoids may all be zero
    for (std::int64_t j = 0; j < k; ++j) chosen += scores[order[j]];
    const float divisor = op.renormalise ? chosen : softmax ? total : 1;
    for (std::int64_t j = 0; j < k; ++j) {
      op.expert_ids.row<std::int32_t>(i)[j] = order[j];
      op.expert_weights.row<float>(i)[j] = scores[order[j]] / divisor * op.scale;
    }
  }
}

void run(const GroupByExpert& op) {
  const std::int64_t slots = op.expert_ids.shape.elements(), k = op.expert_ids.shape[1];
  const std::int64_t held = op.offsets.shape[0] - 1;
  const auto* ids = op.expert_ids.as<const std::int32_t>();
  std::int32_t place = 0;
  for (std::int64_t e = 0; e < held; ++e) {
    op.offsets.as<std::int32_t>()[e] = place;
    std::int32_t output = 0;
    for (std::int64_t s = 0; s < slots; ++s) {
      const std::int64_t expert = ids[s] - op.begin;
      if (expert < 0 || expert >= held) continue;
      if (expert == e) {
        TANDEM_CHECK(place < op.rows.shape[0], "output rows are not the slots of this worker's experts");
        op.rows.as<std::int32_t>()[place] = static_cast<std::int32_t>(s / k);
        op.outputs.as<std::int32_t>()[place] = output;
        op.weights.row<float>(place)[0] = op.expert_weights.as<const float>()[s];
        ++place;
      }
      ++output;
    }
  }
  op.offsets.as<std::int32_t>()[held] = place;
  TANDEM_CHECK(place == op.rows.shape[0], "output rows are not the slots of this worker's experts");
}

void run(const ClampIds& op) {
  for (std::int64_t s = 0; s < op.ids.shape.elements(); ++s) {
    const std::int32_t id = op.ids.as<const std::int32_t>()[s];
    op.out.as<std::int32_t>()[s] = id >= 0 && id < op.count ? id : 0;
  }
}

void run(const GatherRows& op) {
  const auto bytes = static_cast<std::size_t>(op.x.shape[1]) * sizeof(float);
  for (std::int64_t i = 0; i < op.out.rows(); ++i)
    std::memcpy(op.out.row<float>(i), op.x.row<float>(op.index.as<const std::int32_t>()[i]), bytes);
}

void run(const ScatterScaledRows& op) {
  for (std::int64_t i = 0; i < op.x.rows(); ++i) {
    float* out = op.out.row<float>(op.index.as<const std::int32_t>()[i]);
    const float weight = op.weights.row<float>(i)[0];
    for (std::int64_t c = 0; c < op.x.shape[1]; ++c) out[c] = weight * op.x.row<float>(i)[c];
  }
}

namespace {

// Element (row, column) of the tree over partials, which covers count slices from the slice at the cursor on.
float tree_sum(const CombineExperts& op, std::int64_t row, std::int64_t column, std::size_t& next, std::int32_t count) {
  if (op.slice_counts[next] == count) return op.partials[next++].row<float>(row)[column];
  const float left = tree_sum(op, row, column, next, count / 2);
  return left + tree_sum(op, row, column, next, count / 2);
}

}  // namespace

void run(const CombineExperts& op) {
  for (std::int64_t i = 0; i < op.out.rows(); ++i) {
    for (std::int64_t c = 0; c < op.out.shape[1]; ++c) {
      float sum = 0;
      if (op.slot_rows) {
        sum = op.slot_rows.row<float>(i * op.top_k)[c];
        for (std::int32_t j = 1; j < op.top_k; ++j) sum += op.slot_rows.row<float>(i * op.top_k + j)[c];
      }
      if (!op.partials.empty()) {
        std::size_t next = 0;
        const float shared = tree_sum(op, i, c, next, KSlices::kCountMax);
        sum = op.slot_rows ? sum + shared : shared;
      }
      op.out.row<float>(i)[c] = sum;
    }
  }
}

}  // namespace tandem::reference
