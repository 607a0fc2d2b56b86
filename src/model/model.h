// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A model: a few functions per layer, written with operators. A single process calls them in turn; disaggregation cuts
// between route and experts. Models do not know about workers, requests or time.
//
//   embed → for each layer: attention → route ══ hand-over ══▶ experts ══▶ (combined by the caller) → … → head
//
// Immutable after load and safe to share between threads; each thread brings its own Workspace.
#pragma once

#include <cstdint>
#include <memory>

#include "checkpoint/checkpoint.h"
#include "model/arena.h"
#include "model/config.h"
#include "model/share.h"
#include "model/weight_reader.h"
#include "ops/backend.h"

namespace tandem {

// The rows of one micro-batch as operators see them.
struct RowBatch {
  Tensor ids;          // i32 [rows]
  Tensor positions;    // i32 [rows]
  Tensor slots;        // i32 [rows], where each row's KV goes
  Tensor sequences;    // i32 [rows], index into block_table
  Tensor block_table;  // i32 [sequences, blocks]: as the longest context has, rounded up to a power of two
  Tensor logit_rows;   // i32 [logits], the rows that need logits
  // Rows that stand in for embeddings of tokens.
  Tensor embedded;          // [n, hidden]
  Tensor embedded_at;       // i32 [n], which rows they are
  Tensor embedded_weights;  // [n, 1], all one
  std::int64_t context_tokens = 0;
  // The same for windowed layers, where the model has some.
  Tensor window_slots, window_table;
  std::int64_t window_tokens = 0;

  std::int64_t rows() const { return ids.shape[0]; }
};

// What an attention worker keeps of a micro-batch between layers.
struct Residual {
  Tensor stream;  // [rows, hidden]
  Tensor ffn;     // [rows, hidden], what the experts of the layer before added; not yet in stream
  bool has_ffn = false;
};

// What crosses from attention to FFN workers.
struct HandOver {
  Tensor hidden;          // [rows, hidden], normalised
  Tensor expert_ids;      // i32 [rows, k]; no data in dense layers
  Tensor expert_weights;  // f32 [rows, k]
  // With FP8 activations these cross in place of hidden, which FFN workers fill from them (QuantiseRows, WidenRows).
  Tensor codes;   // f8_e4m3 [rows, hidden]
  Tensor scales;  // [rows, groups]

  std::int64_t rows() const { return hidden ? hidden.rows() : codes.rows(); }
  std::int64_t slots() const { return expert_ids ? expert_ids.shape.elements() : 0; }
};

// What crosses back from one FFN worker.
struct FfnOutput {
  Tensor slot_rows;  // [n, hidden]: weighted outputs of this worker's experts, or of its slices of their width, in
                     // order of (row, slot); n is the caller's count
  Tensor partial;    // [rows, hidden]: this worker's subtree of the shared expert or dense FFN; no data without slices
};

// What a worker lends to the model for one call.
struct Workspace {
  Backend& backend;
  Arena& arena;
  KvCache* cache = nullptr;         // attention workers only
  KvCache* window_cache = nullptr;  // of windowed layers, where the model has some
  Activations activations = Activations::kF32;
};

class Model {
 public:
  virtual ~Model() = default;
  const ModelConfig& config() const { return config_; }

  // The attention half.
  virtual void embed(const Workspace& w, const RowBatch& batch, const Residual& residual) const = 0;
  // Adds what the layer before left in residual.ffn; leaves the normalised hidden rows in hand_over.hidden.
  virtual void attention(const Workspace& w, std::int32_t layer, const RowBatch& batch, const Residual& residual,
                         const HandOver& hand_over) const = 0;
  // Routed layers only: fills hand_over's ids and weights from its hidden rows.
  virtual void route(const Workspace& w, std::int32_t layer, const HandOver& hand_over) const = 0;
  virtual void head(const Workspace& w, const RowBatch& batch, const Residual& residual,
                    const Tensor& logits) const = 0;

  // The FFN half.
  virtual void experts(const Workspace& w, std::int32_t layer, const HandOver& hand_over,
                       const FfnOutput& output) const = 0;

  // Scratch for rows_max rows, logits for logits_max of them.
  virtual std::size_t attention_scratch_bytes(std::int64_t rows_max, std::int64_t logits_max) const = 0;
  virtual std::size_t ffn_scratch_bytes(std::int64_t rows_max) const = 0;

  // Memory of packed weights.
  std::int64_t weight_bytes() const { return weight_bytes_; }

 protected:
  explicit Model(ModelConfig config) : config_(std::move(config)) {}
  std::int64_t weight_bytes_ = 0;

 private:
  ModelConfig config_;
};

// Checks the whole checkpoint against the architecture (one error names everything wrong with it), then loads the
// share.
std::unique_ptr<Model> load_model(const Checkpoint& checkpoint, const ModelShare& share, Backend& backend,
                                  const LoadListener& listener = {});

// Parameters and bytes by part; checks the checkpoint like load_model, unless it has no weights to check.
PartSizes measure_parts(const Checkpoint& checkpoint, AssumedPrecision assumed = AssumedPrecision::kBf16);

// The same of what load_model of such a share reads. Unchecked.
PartSizes measure_share(const Checkpoint& checkpoint, const ModelShare& share,
                        AssumedPrecision assumed = AssumedPrecision::kBf16);

}  // namespace tandem
