// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Rows of a Sample as the kernel reads them (sample_rows.h). Host code only; needs no GPU.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "ops/cuda/sampling/sample_rows.h"
#include "ops/sampling.h"

namespace tandem::cuda {

// Greedy, and nothing else is asked.
bool is_plain(const SampleRow& row);

// Whether the kernel has to work on a copy of the logits.
bool is_edited(const SampleRow& row);

// What keeps the row from the kernel, for sample_row to draw it; nullptr: nothing does. These are values that no
// request of the server has: more than kLogprobsMax log-probabilities, and parameters that are not finite or out of
// range; and edited rows where the vocabulary is so large that there is no work row.
const char* why_by_definition(const SampleRow& row, std::int32_t work_rows);

struct SampleNeeds {
  std::size_t words = 0;     // of lists; no more, though perhaps fewer, are written
  std::size_t logprobs = 0;  // entries
};
SampleNeeds needs_of(std::span<const SampleRow> rows, std::int32_t vocab);

// Writes the order of each row and its lists; rows that go by the definition get a plain one. Edited rows take work
// rows 0 … work_rows - 1 in turn.
void write_orders(std::span<const SampleRow> rows, std::int32_t vocab, std::int32_t work_rows,
                  std::span<SampleOrder> orders, std::span<std::uint32_t> words);

// Where the launch that begins at row begin ends: before a work row is wanted twice.
std::size_t launch_end(std::span<const SampleOrder> orders, std::size_t begin, std::int32_t work_rows);

}  // namespace tandem::cuda
