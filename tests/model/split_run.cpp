// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "tests/model/split_run.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "model/layer_pieces.h"
#include "ops/checked.h"
#include "ops/reference/reference_backend.h"

namespace tandem {

namespace {

struct FfnWorker {
  const Model* model;
  FfnShare share;
};

Tensor ids_in(Arena& arena, std::span<const std::int32_t> values) {
  const Tensor ids = arena.i32(static_cast<std::int64_t>(values.size()));
  std::ranges::copy(values, ids.as<std::int32_t>());
  return ids;
}

// One sequence from position 0, in the second block of the cache; every row needs logits.
RowBatch prompt_batch(Arena& arena, std::span<const std::int32_t> tokens) {
  const auto rows = static_cast<std::int64_t>(tokens.size());
  EXPECT_LE(rows, kBlockTokens) << "the prompt has one block";
  std::vector<std::int32_t> positions(tokens.size());
  std::iota(positions.begin(), positions.end(), 0);
  RowBatch batch;
  batch.ids = ids_in(arena, tokens);
  batch.positions = batch.logit_rows = ids_in(arena, positions);
  for (std::int32_t& slot : positions) slot += kBlockTokens;
  batch.slots = ids_in(arena, positions);
  batch.sequences = arena.i32(rows);
  batch.block_table = arena.i32(1);
  batch.block_table.as<std::int32_t>()[0] = 1;
  batch.block_table.shape = {1, 1};
  batch.context_tokens = rows * (rows + 1) / 2;
  return batch;
}

// The FFN half of a layer on all workers, and what comes of it.
void run_ffn(Backend& backend, Arena& tensors, std::span<const FfnWorker> workers, std::int32_t layer,
             const HandOver& hand_over, const Residual& residual) {
  const ModelConfig& c = workers.front().model->config();
  const bool routed = c.is_routed(layer);
  std::vector<WorkerSlots> slots;
  std::vector<Tensor> partials;
  std::vector<std::int32_t> slice_counts;
  for (const FfnWorker& worker : workers) {
    // As much as the model says it needs, and no more: the arena stops the program otherwise.
    Arena scratch(backend, worker.model->ffn_scratch_bytes(hand_over.rows()));
    FfnOutput output;
    if (routed) output.slot_rows = tensors.f32(count_slots(hand_over, worker.share), c.hidden);
    if (worker.share.slice_count > 0 && c.has_shared_ffn(layer))
      output.partial = tensors.f32(hand_over.rows(), c.hidden);
    worker.model->experts({backend, scratch}, layer, hand_over, output);
    if (routed) slots.push_back({worker.share, output.slot_rows});
    if (!output.partial) continue;
    partials.push_back(output.partial);
    slice_counts.push_back(worker.share.slice_count);
  }
  Tensor all;
  if (routed) {
    all = tensors.f32(hand_over.rows() * c.experts_per_token, c.hidden);
    merge_slots(hand_over, slots, all);
  }
  backend.run(CombineExperts{residual.ffn, all, c.experts_per_token, partials, slice_counts});
}

std::vector<float> logits_of(Backend& backend, const Model& attention, std::span<const FfnWorker> workers,
                             std::span<const std::int32_t> tokens) {
  const ModelConfig& c = attention.config();
  const auto rows = static_cast<std::int64_t>(tokens.size());
  Arena tensors(backend, 16 << 20), scratch(backend, attention.attention_scratch_bytes(rows, rows));
  const std::unique_ptr<KvCache> cache = backend.make_kv_cache(c.kv_spec(DType::kF32, 2));
  const std::unique_ptr<KvCache> window_cache =
      c.window.tokens > 0 ? backend.make_kv_cache(c.window_kv_spec(DType::kF32, 2)) : nullptr;
  const Workspace w{backend, scratch, cache.get(), window_cache.get()};
  RowBatch batch = prompt_batch(tensors, tokens);
  batch.window_slots = batch.slots;
  batch.window_table = batch.block_table;
  for (std::int64_t i = 0; i < rows; ++i) batch.window_tokens += std::min<std::int64_t>(i + 1, c.window.tokens);
  Residual residual{tensors.f32(rows, c.hidden), tensors.f32(rows, c.hidden)};
  attention.embed(w, batch, residual);
  for (std::int32_t layer = 0; layer < c.layers; ++layer) {
    Arena::Scope of_layer(tensors);
    HandOver hand_over{.hidden = tensors.f32(rows, c.hidden)};
    attention.attention(w, layer, batch, residual, hand_over);
    if (c.is_routed(layer)) {
      hand_over.expert_ids = tensors.i32(rows * c.experts_per_token);
      hand_over.expert_ids.shape = {rows, c.experts_per_token};
      hand_over.expert_ids.row_stride = c.experts_per_token;
      hand_over.expert_weights = tensors.f32(rows, c.experts_per_token);
      attention.route(w, layer, hand_over);
    }
    run_ffn(backend, tensors, workers, layer, hand_over, residual);
    residual.has_ffn = true;
  }
  const Tensor logits = tensors.f32(rows, c.vocab);
  attention.head(w, batch, residual, logits);
  return {logits.f32(), logits.f32() + logits.shape.elements()};
}

}  // namespace

void merge_slots(const HandOver& hand_over, std::span<const WorkerSlots> workers, const Tensor& all) {
  const auto* ids = hand_over.expert_ids.as<const std::int32_t>();
  std::vector<std::int64_t> taken(workers.size());
  for (std::int64_t slot = 0; slot < hand_over.expert_ids.shape.elements(); ++slot) {
    const auto owner = std::ranges::find_if(workers, [&](const WorkerSlots& w) { return w.share.owns(ids[slot]); });
    ASSERT_NE(owner, workers.end()) << "nobody owns expert " << ids[slot];
    std::copy_n(owner->slot_rows.row<float>(taken[owner - workers.begin()]++), all.shape[1], all.row<float>(slot));
  }
  for (std::size_t i = 0; i < workers.size(); ++i) EXPECT_EQ(taken[i], workers[i].slot_rows.rows());
}

std::vector<float> split_logits(const Checkpoint& checkpoint, std::int32_t ffn_workers,
                                std::span<const std::int32_t> tokens) {
  const auto backend = checked_reference();
  const auto attention = load_model(checkpoint, {.attention = true, .ffn = false}, *backend);
  std::vector<std::unique_ptr<Model>> models;
  std::vector<FfnWorker> workers;
  for (std::int32_t i = 0; i < ffn_workers; ++i) {
    const FfnShare share = ffn_share(i, ffn_workers, attention->config().experts);
    models.push_back(load_model(checkpoint, {.attention = false, .ffn = true, .experts = share}, *backend));
    workers.push_back({models.back().get(), share});
  }
  return logits_of(*backend, *attention, workers, tokens);
}

std::vector<float> whole_logits(const Checkpoint& checkpoint, std::span<const std::int32_t> tokens) {
  const auto backend = checked_reference();
  const FfnShare all = ffn_share(0, 1, read_config(checkpoint).experts);
  const auto model = load_model(checkpoint, {.attention = true, .ffn = true, .experts = all}, *backend);
  const FfnWorker worker{model.get(), all};
  return logits_of(*backend, *model, {&worker, 1}, tokens);
}

std::unique_ptr<Backend> checked_reference() {
  return make_checked_backend(make_reference_backend());
}

}  // namespace tandem
