// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// How sparse the experts of a layer may be (paper, sections 5.3 to 5.5). S = active / all experts, shared ones
// included.
//
//   8-bit weights are read once for a batch, so B_dense ≥ FLOPs / (2 · bandwidth) keeps a dense FFN busy, and
//   B_moe = B_dense / S the experts. An FFN server takes hidden · 1 byte a row and gives hidden · 2 bytes back, within
//   a stage of a third of the time per token over all layers:
//     3 · hidden · B_moe / network ≤ TPOT / 3 / layers,   so   S ≥ hidden · roofline · layers / (network · 11.1 ms)
//   (at 50 ms; the paper's 11.1 ms are TPOT · 2/9).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "plan/hardware.h"
#include "plan/shape.h"

namespace tandem {

struct SparsityQuestion {
  double tpot = 0.05;             // seconds
  double network_efficiency = 1;  // of the link; DeepEP's 40 of 50 GB/s are 0.8
};

// Rows of a micro-batch that keep the multipliers of a dense FFN with 8-bit weights busy.
double dense_batch(const Hardware& hardware);

// The smallest S for which the experts are kept busy through the link.
double sparsity_min(const Hardware& hardware, double hidden, double layers, const SparsityQuestion& question);

// One model on one accelerator. A dense model has S = 1.
struct SparsityAnswer {
  double sparsity = 0;  // S of the routed layers
  double sparsity_min = 0;
  double batch = 0;            // B_moe
  double active = 0, all = 0;  // experts, with shared ones counted in widths of a routed one
  double active_needed = 0;    // experts active, shared included, at which S would be the least allowed
  double experts_max = 0;      // of all, at which it would be with as many active as now

  bool holds() const { return sparsity >= sparsity_min; }
  // How much longer the link takes than the stage has; 1 and below: it keeps up.
  double slower() const { return sparsity_min / sparsity; }
};
SparsityAnswer check_sparsity(const ModelShape& shape, const Hardware& hardware, const SparsityQuestion& question);

std::string sparsity_text(const std::vector<ModelShape>& models, const std::vector<Hardware>& hardware,
                          const SparsityQuestion& question);
// One object a line for each model × hardware.
std::string sparsity_json(const std::vector<ModelShape>& models, const std::vector<Hardware>& hardware,
                          const SparsityQuestion& question);

}  // namespace tandem
