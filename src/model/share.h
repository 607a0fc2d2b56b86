// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Which part of a model a worker holds. A layer is cut between route and experts; several FFN workers share a layer by
// whole experts (EP) and, for what every token uses (shared expert, dense FFN), by whole subtrees of the width's slices
// (TP).
#pragma once

#include <cstdint>

namespace tandem {

// FFN worker index of count.
struct FfnShare {
  std::int32_t expert_begin = 0;
  std::int32_t expert_end = 0;  // routed experts [begin, end)
  std::int32_t slice_first = 0;
  std::int32_t slice_count = 8;  // of KSlices::kCountMax; 0: this worker holds no part of the shared width

  bool owns(std::int32_t expert) const { return expert >= expert_begin && expert < expert_end; }
};

// Experts go to workers in even contiguous ranges; the slices are halved, the last largest part first, until there is
// one part per worker (3 workers: 4, 2 and 2). Workers beyond the eighth hold experts only.
FfnShare ffn_share(std::int32_t index, std::int32_t count, std::int32_t experts);

struct ModelShare {
  bool attention = true;  // attention, norms, router, embedding and head
  bool ffn = true;
  FfnShare experts;  // meaningful when ffn
};

}  // namespace tandem
