// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Where the arrays of a hand-over lie in the payload of a frame: views only, no copies (transport/frame.h has the
// table).
#pragma once

#include <cstddef>
#include <span>

#include "model/model.h"
#include "transport/frame.h"

namespace tandem {

// Where the next frame or array begins behind so many bytes of one.
constexpr std::size_t aligned(std::size_t bytes) {
  return (bytes + 63) / 64 * 64;
}

// Experts for each token: 0 in layers that are not routed.
std::int64_t top_k(const ModelConfig& model, std::int32_t layer);

// What crosses is what experts consume: f32 rows, which int8 products round for themselves, or E4M3 codes and their
// factors.
std::int64_t hand_over_row_bytes(std::int64_t hidden, Activations activations);
std::size_t hand_over_bytes(std::int64_t rows, std::int64_t hidden, std::int64_t top_k,
                            Activations activations = Activations::kF32);
// With FP8 activations hidden has no data: it is not what crosses.
HandOver hand_over_in(std::span<std::byte> payload, std::int64_t rows, std::int64_t hidden, std::int64_t top_k,
                      Activations activations = Activations::kF32);

// What the host reads of a hand-over whose rows lie on a device: in one piece there, too, beginning with the ids.
std::size_t choices_bytes(std::int64_t rows, std::int64_t top_k);
HandOver choices_in(std::span<std::byte> payload, std::int64_t rows, std::int64_t top_k);  // ids and weights alone

// Rows of partials that a worker of this share sends back for rows of a layer.
std::int64_t partial_rows(const ModelConfig& model, const FfnShare& share, std::int32_t layer, std::int64_t rows);

std::size_t return_bytes(std::int64_t slot_rows, std::int64_t partial_rows, std::int64_t hidden);
FfnOutput return_in(std::span<std::byte> payload, std::int64_t slot_rows, std::int64_t partial_rows,
                    std::int64_t hidden);

}  // namespace tandem
