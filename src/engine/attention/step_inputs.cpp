// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "engine/attention/step_inputs.h"

#include <algorithm>
#include <bit>

namespace tandem {

StepInputs::StepInputs(Backend& backend, const Limits& limits) : backend_(backend), limits_(limits) {
  const std::int64_t table = limits.sequences * limits.blocks_per_sequence;
  const bool windowed = limits.window_tokens > 0, embeds = limits.embedded_hidden > 0;
  fixed_ = 5 * limits.rows + (windowed ? limits.rows + table : 0) + (embeds ? limits.rows : 0);
  const std::size_t bytes = static_cast<std::size_t>(fixed_ + table) * sizeof(std::int32_t);
  if (!backend.host_memory()) far_memory_ = backend.allocate(bytes);
  memory_ = backend.allocate_shared(far_memory_.data() ? 2 * bytes : bytes);
  lay_out();
  if (!embeds) return;
  const std::int64_t values = limits.rows * limits.embedded_hidden;
  embedded_memory_ = backend.allocate_shared(static_cast<std::size_t>(values + limits.rows) * sizeof(float));
  auto* first = static_cast<float*>(embedded_memory_.data());
  full_.embedded = Tensor(first, DType::kF32, {limits.rows, limits.embedded_hidden});
  full_.embedded_weights = Tensor(first + values, DType::kF32, {limits.rows, 1});
  std::fill_n(first + values, limits.rows, 1.0f);
}

// The integers of a step, at their place.
void StepInputs::lay_out() {
  auto* at = reinterpret_cast<std::int32_t*>(memory_.bytes_data() + place_ * far_memory_.bytes());
  const auto carve = [&](const Shape& shape) {
    const Tensor tensor(at, DType::kI32, shape);
    at += shape.elements();
    return tensor;
  };
  full_.ids = carve({limits_.rows});
  full_.positions = carve({limits_.rows});
  full_.slots = carve({limits_.rows});
  full_.sequences = carve({limits_.rows});
  full_.logit_rows = carve({limits_.rows});
  if (limits_.window_tokens > 0) {
    full_.window_slots = carve({limits_.rows});
    full_.window_table = carve({limits_.sequences, limits_.blocks_per_sequence});
  }
  if (limits_.embedded_hidden > 0) full_.embedded_at = carve({limits_.rows});
  full_.block_table = carve({limits_.sequences, limits_.blocks_per_sequence});
}

// Of a sequence whose first row is first_row of the micro-batch.
void StepInputs::add_embedded(const SequenceRows& sequence, std::int64_t first_row, std::int64_t& count) {
  for (const EmbeddedSpan& span : sequence.embedded) {
    const std::int64_t begin = std::max(span.position, sequence.position);
    const std::int64_t end = std::min(span.end(), sequence.position + sequence.rows());
    for (std::int64_t position = begin; position < end; ++position, ++count) {
      std::copy_n(span.rows->row(span.first_row + position - span.position), limits_.embedded_hidden,
                  full_.embedded.row<float>(count));
      full_.embedded_at.as<std::int32_t>()[count] = static_cast<std::int32_t>(first_row + position - sequence.position);
    }
  }
}

const RowBatch& StepInputs::fill(const MicroBatch& plan) {
  const std::int64_t rows = plan.rows(), sequences = static_cast<std::int64_t>(plan.sequences.size());
  TANDEM_CHECK(rows <= limits_.rows && sequences <= limits_.sequences, "a micro-batch larger than its limits");
  if (far_memory_.data()) {
    place_ = 1 - place_;
    lay_out();
  }
  const bool windowed = limits_.window_tokens > 0;
  const auto slot = [](const std::vector<std::int32_t>& blocks, std::int64_t position) {
    return blocks[position / kBlockTokens] * kBlockTokens + static_cast<std::int32_t>(position % kBlockTokens);
  };
  std::int64_t row = 0, logits = 0, embedded = 0, blocks = 0;
  batch_.context_tokens = batch_.window_tokens = 0;
  for (std::int64_t s = 0; s < sequences; ++s) {
    const SequenceRows& sequence = plan.sequences[s];
    TANDEM_CHECK(static_cast<std::int64_t>(sequence.blocks.size()) <= limits_.blocks_per_sequence,
                 "a block table larger than its limit");
    std::copy(sequence.blocks.begin(), sequence.blocks.end(), full_.block_table.row<std::int32_t>(s));
    blocks = std::max(blocks, static_cast<std::int64_t>(sequence.blocks.size()));
    if (windowed) std::ranges::copy(sequence.window_blocks, full_.window_table.row<std::int32_t>(s));
    add_embedded(sequence, row, embedded);
    for (std::int64_t i = 0; i < sequence.rows(); ++i, ++row) {
      const std::int64_t position = sequence.position + i;
      full_.ids.as<std::int32_t>()[row] = sequence.tokens[i];
      full_.positions.as<std::int32_t>()[row] = static_cast<std::int32_t>(position);
      full_.slots.as<std::int32_t>()[row] = slot(sequence.blocks, position);
      if (windowed) full_.window_slots.as<std::int32_t>()[row] = slot(sequence.window_blocks, position);
      full_.sequences.as<std::int32_t>()[row] = static_cast<std::int32_t>(s);
      if (i >= sequence.logits_from) full_.logit_rows.as<std::int32_t>()[logits++] = static_cast<std::int32_t>(row);
      batch_.context_tokens += position + 1;
      batch_.window_tokens += std::min(position + 1, limits_.window_tokens);
    }
  }
  batch_.ids = for_operators(full_.ids, rows);
  batch_.positions = for_operators(full_.positions, rows);
  batch_.slots = for_operators(full_.slots, rows);
  batch_.sequences = for_operators(full_.sequences, rows);
  batch_.logit_rows = for_operators(full_.logit_rows, logits);
  const std::int64_t width =
      std::min<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(blocks)), limits_.blocks_per_sequence);
  batch_.block_table = for_operators(full_.block_table, sequences).slice_columns(0, width);
  if (windowed) {
    batch_.window_slots = for_operators(full_.window_slots, rows);
    batch_.window_table = for_operators(full_.window_table, sequences).slice_columns(0, width);
  }
  if (limits_.embedded_hidden > 0) {
    batch_.embedded = full_.embedded.slice_rows(0, embedded);
    batch_.embedded_at = for_operators(full_.embedded_at, embedded);
    batch_.embedded_weights = full_.embedded_weights.slice_rows(0, embedded);
  }
  if (far_memory_.data())  // the table is last: its unused rows stay here
    backend_.copy(far_memory_.data(), full_.ids.data,
                  static_cast<std::size_t>(fixed_ + sequences * limits_.blocks_per_sequence) * sizeof(std::int32_t));
  return batch_;
}

Tensor StepInputs::for_operators(const Tensor& full, std::int64_t rows) const {
  Tensor used = full.slice_rows(0, rows);
  if (far_memory_.data()) used.data = far_memory_.bytes_data() + (used.as<std::byte>() - full_.ids.as<std::byte>());
  return used;
}

}  // namespace tandem
