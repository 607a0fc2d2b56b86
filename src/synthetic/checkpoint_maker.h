// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A synthetic checkpoint: a Hugging Face folder with a configuration, a tokenizer and random weights under the names,
// shapes and types of the published ones. Which tensors there are is asked of the models (model/tensor_list.h).
//
// Weights are scaled so that activations stay finite and routers spread their choices: matrices keep the size of what
// they are given, norms are near one, biases near zero.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/json.h"
#include "model/tensor_list.h"
#include "synthetic/resize.h"
#include "synthetic/weight_values.h"

namespace tandem {

inline constexpr std::uint64_t kShardBytes = 5'000'000'000;

// All of a checkpoint but its bytes.
struct CheckpointPlan {
  OrderedJson config;
  std::vector<ListedTensor> tensors;
  std::vector<NormalSpread> spreads;             // of tensors, one by one
  std::vector<std::vector<std::size_t>> shards;  // indices of tensors, file by file
  std::uint64_t bytes = 0;                       // of all tensors
};

// Files end before shard_bytes unless one tensor alone is larger. Throws Error like read_config for a configuration
// that no model takes.
CheckpointPlan plan_checkpoint(const OrderedJson& config, std::uint64_t shard_bytes = kShardBytes);

// The resizing by one scale, within the other wishes, with the most bytes that are no more than these. Throws
// Error{kInvalidArgument} when the smallest has more.
OrderedJson resize_to_bytes(const OrderedJson& config, Resizing resizing, std::uint64_t bytes);

struct WritingOptions {
  std::uint64_t seed = 1;
  int threads = 1;
  std::function<void(std::int64_t bytes)> listener;  // as in SafetensorsSource
};

// Writes to folder + ".partial" and renames it when it is whole; what failed is removed. Throws Error{kInvalidArgument}
// when the folder is there and not empty or the partial one is there, {kOutOfResources} when the disk has no room,
// and what the file system answers.
void write_checkpoint(const CheckpointPlan& plan, const std::string& folder, const WritingOptions& options);

}  // namespace tandem
