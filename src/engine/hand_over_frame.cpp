// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "engine/hand_over_frame.h"

#include "base/check.h"

namespace tandem {

std::size_t hand_over_bytes(std::int64_t rows, std::int64_t hidden, std::int64_t top_k) {
  return static_cast<std::size_t>(rows * (hidden + 2 * top_k)) * 4;
}

HandOver hand_over_in(std::span<std::byte> payload, std::int64_t rows, std::int64_t hidden, std::int64_t top_k) {
  TANDEM_CHECK(payload.size() >= hand_over_bytes(rows, hidden, top_k), "a hand-over larger than its frame");
  HandOver view;
  view.hidden = Tensor(payload.data(), DType::kF32, {rows, hidden});
  if (top_k > 0) {
    std::byte* ids = payload.data() + static_cast<std::size_t>(rows * hidden) * 4;
    view.expert_ids = Tensor(ids, DType::kI32, {rows, top_k});
    view.expert_weights = Tensor(ids + static_cast<std::size_t>(rows * top_k) * 4, DType::kF32, {rows, top_k});
  }
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
