// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "engine/attention/return_sum.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace tandem {

ReturnSum::ReturnSum(Backend& backend, const WorkerConfig& config, const ModelConfig& model, bool device_rows)
    : backend_(backend),
      shares_(config.shares(model)),
      width_(static_cast<std::size_t>(config.layout.ffn_width)),
      hidden_(model.hidden),
      device_rows_(device_rows),
      places_(static_cast<std::size_t>(config.micro_batches)) {
  if (shares_.size() > 1) allocate(config.rows_max * model.experts_per_token);
}

void ReturnSum::allocate(std::int64_t slots_max) {
  const std::size_t bytes = static_cast<std::size_t>(slots_max * hidden_) * sizeof(float);
  const bool by_place = cuts_experts() || device_rows_;
  const std::size_t sums = cuts_experts() ? bytes : 0, words = by_place ? aligned(8 * slots_max) : 0;
  const std::size_t on_device = device_rows_ ? bytes : 0;  // else the host puts them in order
  memory_ = backend_.allocate(places_.size() * (sums + on_device));
  shared_memory_ = backend_.allocate_shared(places_.size() * (bytes - on_device + words));
  std::byte *at = memory_.bytes_data(), *shared_at = shared_memory_.bytes_data();
  const auto carve = [](std::byte*& from, std::size_t size) { return std::exchange(from, from + size); };
  for (Places& places : places_) {
    places.slot_rows = Tensor(carve(device_rows_ ? at : shared_at, bytes), DType::kF32, {slots_max, hidden_});
    if (cuts_experts()) places.sums = Tensor(carve(at, bytes), DType::kF32, {slots_max, hidden_});
    if (!by_place) continue;
    std::byte* const both = carve(shared_at, words);
    places.index = Tensor(both, DType::kI32, {slots_max});
    places.weights = Tensor(both + 4 * slots_max, DType::kF32, {slots_max, 1});
    std::fill_n(places.weights.as<float>(), slots_max, 1.0f);
  }
}

void ReturnSum::run(std::int32_t m, std::int64_t top_k, const HandOver& hand_over,
                    std::span<const FfnOutput* const> returned, const Tensor& out) {
  Tensor partials[kWorkersMax];
  std::int32_t slice_counts[kWorkersMax];
  std::size_t count = 0;
  for (std::size_t f = 0; f < shares_.size(); ++f) {
    if (!returned[f]->partial) continue;
    partials[count] = returned[f]->partial;
    slice_counts[count++] = shares_[f].slice_count;
  }
  Places& places = places_[static_cast<std::size_t>(m)];
  backend_.run(CombineExperts{.out = out,
                              .slot_rows = top_k > 0 ? slots_in_order(places, hand_over, returned) : Tensor(),
                              .top_k = static_cast<std::int32_t>(top_k),
                              .partials = std::span(partials, count),
                              .slice_counts = std::span(slice_counts, count)});
}

Tensor ReturnSum::slots_in_order(Places& places, const HandOver& hand_over,
                                 std::span<const FfnOutput* const> returned) {
  if (shares_.size() == 1) return returned[0]->slot_rows;
  if (cuts_experts() || device_rows_) return slots_by_place(places, hand_over, returned);
  const std::int64_t slots = hand_over.expert_ids.shape.elements();
  const std::size_t bytes = static_cast<std::size_t>(hidden_) * 4;
  const auto* ids = hand_over.expert_ids.as<const std::int32_t>();
  std::int64_t next[kWorkersMax] = {};
  for (std::int64_t s = 0; s < slots; ++s) {
    std::int32_t f = 0;
    while (!shares_[f].owns(ids[s])) ++f;
    std::memcpy(places.slot_rows.row<float>(s), returned[f]->slot_rows.row<float>(next[f]++), bytes);
  }
  return places.slot_rows.slice_rows(0, slots);
}

// The same where the host only says where each row goes: it has no rows, or they come in parts. The memory that says it
// is filled again after attention has waited for the next layer's choices. Rows that come whole are weighted already;
// 1 · x is x.
Tensor ReturnSum::slots_by_place(Places& places, const HandOver& hand_over,
                                 std::span<const FfnOutput* const> returned) {
  const std::int64_t slots = hand_over.expert_ids.shape.elements();
  const auto* ids = hand_over.expert_ids.as<const std::int32_t>();
  const auto* weights = hand_over.expert_weights.as<const float>();
  const Tensor in_order = places.slot_rows.slice_rows(0, slots);
  std::int64_t first = 0;
  for (std::size_t f = 0; f < shares_.size(); f += width_) {
    std::int64_t end = first;
    for (std::int64_t s = 0; s < slots; ++s) {
      if (!shares_[f].owns(ids[s])) continue;
      if (cuts_experts()) places.weights.as<float>()[end] = weights[s];
      places.index.as<std::int32_t>()[end++] = static_cast<std::int32_t>(s);
    }
    if (end == first) continue;
    const Tensor rows =
        cuts_experts() ? sum_of_parts(f, returned, places.sums.slice_rows(first, end - first)) : returned[f]->slot_rows;
    backend_.run(ScatterScaledRows{.out = in_order,
                                   .x = rows,
                                   .index = places.index.slice_rows(first, end - first),
                                   .weights = places.weights.slice_rows(first, end - first)});
    first = end;
  }
  return in_order;
}

// Where experts are cut by width the workers of a group, of which f is the first, have sent a node of each sum's tree,
// for the same slots in the same order. What is left of the tree is added here, and is then weighted as an FFN worker
// that holds whole experts does.
Tensor ReturnSum::sum_of_parts(std::size_t f, std::span<const FfnOutput* const> returned, const Tensor& sums) {
  Tensor partials[KSlices::kCountMax];
  std::int32_t slice_counts[KSlices::kCountMax];
  for (std::size_t part = 0; part < width_; ++part) {
    partials[part] = returned[f + part]->slot_rows;
    slice_counts[part] = shares_[f + part].width_count;
  }
  backend_.run(CombineExperts{.out = sums,
                              .slot_rows = {},
                              .top_k = 0,
                              .partials = std::span(partials, width_),
                              .slice_counts = std::span(slice_counts, width_)});
  return sums;
}

}  // namespace tandem
