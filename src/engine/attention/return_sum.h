// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Adds up what the FFN workers returned of a micro-batch: each row's experts in the order of its slots, whoever
// computed them, and the parts of what every token uses over the fixed tree. So the sum has the same bits in every
// layout.
//
// Slot rows of one worker are in order already. Those of several are put in order by who owns each slot's expert: by
// the host, or by the device where the host has no rows or they are parts of sums. One thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/worker/worker_config.h"
#include "model/model.h"
#include "ops/backend.h"

namespace tandem {

class ReturnSum {
 public:
  // device_rows: returns lie in device memory.
  ReturnSum(Backend& backend, const WorkerConfig& config, const ModelConfig& model, bool device_rows);

  // Of micro-batch m in a layer with so many experts for each token. hand_over: what was returned to; where there are
  // several workers its choices are the host's, as they stood when it was sent. returned: by FFN worker, in memory
  // where operators work. out: [rows, hidden]. The host fills memory for it here: of one m, only when the backend has
  // executed what was given before.
  void run(std::int32_t m, std::int64_t top_k, const HandOver& hand_over, std::span<const FfnOutput* const> returned,
           const Tensor& out);

 private:
  struct Places {           // of one micro-batch, at their largest
    Tensor slot_rows;       // in order
    Tensor sums;            // of slots whose experts are cut by width, by group of workers
    Tensor index, weights;  // of slots by worker, or by group: where each goes, and with what weight
  };

  bool cuts_experts() const { return shares_.front().cuts_experts(); }
  void allocate(std::int64_t slots_max);
  Tensor slots_in_order(Places& places, const HandOver& hand_over, std::span<const FfnOutput* const> returned);
  Tensor slots_by_place(Places& places, const HandOver& hand_over, std::span<const FfnOutput* const> returned);
  Tensor sum_of_parts(std::size_t f, std::span<const FfnOutput* const> returned, const Tensor& sums);

  Backend& backend_;
  std::vector<FfnShare> shares_;
  std::size_t width_;  // FFN workers of a group
  std::int64_t hidden_;
  bool device_rows_;
  Buffer memory_, shared_memory_;
  std::vector<Places> places_;
};

}  // namespace tandem
