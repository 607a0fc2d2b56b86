// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A decoding step of several micro-batches on their way between an attention GPU and an FFN GPU (paper, figure 7;
// spec, section 10.4), event by event: who waits for whom. The paper's rule (plan/decode_model.h) takes stages for
// queues with equal times; measured kernels are neither, so of measured stages a plan takes the longer of that rule's
// time and this one's.
//
// A      Micro-batches share the GPU: one alone takes attention_alone, n beside each other are done at the rate
//        n / max(attention_alone, n · attention_busy).
// links  One micro-batch at a time each way.
// F      Micro-batches come in a fixed order, in three streams: what is before the products, the products, what is
//        after them; each stream takes one micro-batch after the other. Copies between the server's GPUs need no
//        room: copy engines make them, or one small warp of a multiprocessor. A kernel has the multiprocessors to
//        itself until it ends: a product fills them with one wave of blocks that leaves registers for such a warp only.
//        The kernels before and after products are urgent: of those that wait the one that has waited longest is next,
//        and products only when there is none.
// gaps   What follows in another stream, or after a copy or a flag, begins a gap later.
//
// Deterministic: the same step takes the same time. It starts with all micro-batches at A, some layers before the step
// that counts, as a step's head leaves them.
#pragma once

#include <cstdint>
#include <vector>

namespace tandem {

// Seconds, of one micro-batch in one layer.
struct FfnPieces {
  struct Products {
    double gate_up = 0, down = 0;
  };

  double copy_in = 0;              // rows from the server's other GPUs and to them; 0: there is no such piece
  double gather = 0;               // kernels before the products
  std::vector<Products> products;  // as rows are drawn, all equally likely; at least one
  double copy_out = 0;             // as copy_in, of results
  double combine = 0;              // the kernel after them
  double flag = 0;                 // that says it is done
  double gap = 0;
};

struct PipelineLayers {
  std::int32_t count = 0;  // layers like this, one after the other
  double attention_alone = 0, attention_busy = 0;
  double to_ffn = 0, to_attention = 0;
  FfnPieces ffn;
};

struct PipelineStep {
  std::int32_t micro_batches = 0;
  double head_alone = 0, head_busy = 0;  // of each micro-batch, before its first layer
  std::vector<PipelineLayers> layers;    // in order
};

// From one begin of a step to the next, on average over the micro-batches.
double step_seconds(const PipelineStep& step);

}  // namespace tandem
