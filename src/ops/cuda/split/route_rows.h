// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The router of a decode step: logits of every expert, softmax, the best few. Ids and weights stand in the order of
// their weights; among equals the smaller id goes first. Sums over hidden are f32, in one order for every row.
#pragma once

#include <cstdint>

#include "ops/cuda/split/seal.h"
#include "ops/cuda/stream.h"

namespace tandem::cuda {

// Everything points to device memory.
struct RouteRows {
  const std::uint16_t* x;       // bf16 [rows, hidden]
  const std::uint16_t* weight;  // bf16 [experts, hidden]
  std::int32_t* ids;            // [rows, top_k]
  float* weights;               // [rows, top_k], of a softmax over all experts
  std::int32_t rows, hidden;    // hidden: a multiple of 512
  std::int32_t experts;         // a multiple of 8, at most kExpertsMax
  std::int32_t top_k;           // at most experts

  // Of the hand-over that this completes, and of the return before it.
  SealWrite seal{};
  SealCheck returned{};

  static constexpr std::int32_t kExpertsMax = 64;
};
void run(const RouteRows& op, Stream stream);

// The same for a layer without a router.
struct SealHandOver {
  SealWrite seal{};
  SealCheck returned{};
};
void run(const SealHandOver& op, Stream stream);

}  // namespace tandem::cuda
