// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Which part of a model a worker holds. A layer is cut between route and experts; several FFN workers share a layer by
// whole experts (EP), by whole subtrees of the experts' width (TP), or by both; and, for what every token uses (shared
// expert, dense FFN), by whole subtrees of its width.
#pragma once

#include <cstdint>

namespace tandem {

// How FFN workers that are no replicas share a layer: groups of whole experts, and in each group equal parts of the
// experts' width. experts · width is the number of workers; worker i is part i % width of group i / width.
struct FfnSplit {
  std::int32_t experts = 1;
  std::int32_t width = 1;  // a power of two, 8 at most (KSlices)

  std::int32_t workers() const { return experts * width; }
  bool operator==(const FfnSplit&) const = default;
};

// What one FFN worker of a split holds.
struct FfnShare {
  std::int32_t expert_begin = 0;
  std::int32_t expert_end = 0;  // routed experts [begin, end)
  std::int32_t slice_first = 0;
  std::int32_t slice_count = 8;  // of KSlices::kCountMax; 0: this worker holds no part of the shared width
  std::int32_t width_first = 0;  // of the same slices of each routed expert
  std::int32_t width_count = 8;

  bool owns(std::int32_t expert) const { return expert >= expert_begin && expert < expert_end; }
  // Whether others hold further parts of these experts, so that results are sums of several workers'.
  bool cuts_experts() const { return width_count != 8; }
  bool operator==(const FfnShare&) const = default;
};

// Experts go to groups in even contiguous ranges. What every token uses goes to all workers: its slices are halved, the
// last largest part first, until there is one part per worker (3 workers: 4, 2 and 2); workers beyond the eighth hold
// experts only.
FfnShare ffn_share(std::int32_t index, const FfnSplit& split, std::int32_t experts);
// Worker index of count, by whole experts.
FfnShare ffn_share(std::int32_t index, std::int32_t count, std::int32_t experts);

struct ModelShare {
  bool attention = true;  // attention, norms, router, embedding and head
  bool ffn = true;
  FfnShare experts;  // meaningful when ffn
};

}  // namespace tandem
