// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What an independent implementation recorded beside a checkpoint: expected.json (prompts, tolerances) and
// expected.safetensors (prompts, logits, greedy continuations, expert choices). The form is that of tests/goldens.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "model/config.h"
#include "sched/embedding_rows.h"

namespace tandem {

struct ExpectedRoutes {
  std::vector<std::int32_t> ids;  // [positions, k]
  std::vector<float> weights;     // [positions, k]
  std::int64_t k = 0;
};

struct LogitLimits {
  double max_abs_f32 = 0;
  double max_abs_bf16 = 0;  // 0: only the root mean square is held
  double rms_bf16 = 0;
  double rms_rounded = 0;  // of rounded activations the only limit: an input beside a border moves a whole step
};

struct ExpectedPrompt {
  std::string name;
  LogitLimits limits;
  std::vector<std::int32_t> ids;
  std::shared_ptr<const EmbeddingRows> visual_rows;  // of all its pictures, at its placeholders; null: none
  std::int64_t vocab = 0;
  std::vector<std::int32_t> logit_rows;  // positions of logits, ascending
  std::vector<float> logits;             // [logit_rows, vocab]
  std::vector<std::int32_t> greedy_ids;
  std::vector<float> greedy_logits;               // [greedy_ids, vocab]
  std::map<std::int32_t, ExpectedRoutes> routes;  // by layer; empty for dense models
  bool bf16_same_greedy = false;                  // ids are expected to be equal in bf16 too
  bool bf16_same_experts = false;
};

struct Expectations {
  std::vector<ExpectedPrompt> prompts;
  // Whether recorded expert weights have the router's factor in them; in one family the factor comes after the sum.
  bool weights_scaled = true;
  Activations activations = Activations::kF32;  // kFp8: recorded with them; kInt8: limits are for them
};

// Of the checkpoint at path: a folder, or a GGUF file whose folder holds the recordings. Throws Error.
// activations: those of FP8 have recordings of their own; Error{kInvalidArgument} where there are none. Those of eight
// bits are held to the recordings of f32, within what bf16 may be off.
Expectations read_expectations(const std::string& path, Activations activations = Activations::kF32);

}  // namespace tandem
