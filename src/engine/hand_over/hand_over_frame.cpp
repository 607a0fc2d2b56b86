// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "engine/hand_over/hand_over_frame.h"

#include "base/check.h"
#include "ops/f8_rows.h"

namespace tandem {

std::int64_t top_k(const ModelConfig& model, std::int32_t layer) {
  return model.is_routed(layer) ? model.experts_per_token : 0;
}

std::int64_t hand_over_row_bytes(std::int64_t hidden, Activations activations) {
  return activations == Activations::kFp8 ? hidden + 4 * f8_groups(hidden) : 4 * hidden;
}

std::size_t hand_over_bytes(std::int64_t rows, std::int64_t hidden, std::int64_t top_k, Activations activations) {
  return static_cast<std::size_t>(rows * (hand_over_row_bytes(hidden, activations) + 8 * top_k));
}

HandOver hand_over_in(std::span<std::byte> payload, std::int64_t rows, std::int64_t hidden, std::int64_t top_k,
                      Activations activations) {
  TANDEM_CHECK(payload.size() >= hand_over_bytes(rows, hidden, top_k, activations),
               "a hand-over larger than its frame");
  std::byte* at = payload.data();
  const auto take = [&](DType dtype, std::int64_t columns) {
    const Tensor view(at, dtype, {rows, columns});
    at += row_bytes(dtype, static_cast<std::size_t>(rows * columns));
    return view;
  };
  HandOver view;
  if (activations != Activations::kFp8)
    view.hidden = take(DType::kF32, hidden);
  else
    view.scales = take(DType::kF32, f8_groups(hidden));
  if (top_k > 0) {
    view.expert_ids = take(DType::kI32, top_k);
    view.expert_weights = take(DType::kF32, top_k);
  }
  if (activations == Activations::kFp8) view.codes = take(DType::kF8E4M3, hidden);  // last: bytes need no alignment
  return view;
}

std::size_t choices_bytes(std::int64_t rows, std::int64_t top_k) {
  return static_cast<std::size_t>(8 * rows * top_k);
}

HandOver choices_in(std::span<std::byte> payload, std::int64_t rows, std::int64_t top_k) {
  TANDEM_CHECK(payload.size() >= choices_bytes(rows, top_k), "choices larger than their frame");
  HandOver view;
  if (top_k == 0) return view;
  view.expert_ids = Tensor(payload.data(), DType::kI32, {rows, top_k});
  view.expert_weights = Tensor(payload.data() + 4 * rows * top_k, DType::kF32, {rows, top_k});
  return view;
}

std::int64_t partial_rows(const ModelConfig& model, const FfnShare& share, std::int32_t layer, std::int64_t rows) {
  return share.slice_count > 0 && model.has_shared_ffn(layer) ? rows : 0;
}

std::size_t return_bytes(std::int64_t slot_rows, std::int64_t partial_rows, std::int64_t hidden) {
  return static_cast<std::size_t>((slot_rows + partial_rows) * hidden) * 4;
}

FfnOutput return_in(std::span<std::byte> payload, std::int64_t slot_rows, std::int64_t partial_rows,
                    std::int64_t hidden) {
  TANDEM_CHECK(payload.size() >= return_bytes(slot_rows, partial_rows, hidden), "a return larger than its frame");
  FfnOutput view;
  view.slot_rows = Tensor(payload.data(), DType::kF32, {slot_rows, hidden});
  if (partial_rows > 0)
    view.partial =
        Tensor(payload.data() + static_cast<std::size_t>(slot_rows * hidden) * 4, DType::kF32, {partial_rows, hidden});
  return view;
}

}  // namespace tandem
