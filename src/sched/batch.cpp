// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "sched/batch.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/check.h"
#include "base/format.h"

namespace tandem {

std::int64_t MicroBatch::rows() const {
  std::int64_t sum = 0;
  for (const SequenceRows& sequence : sequences) sum += sequence.rows();
  return sum;
}

std::int64_t MicroBatch::logits_rows() const {
  std::int64_t sum = 0;
  for (const SequenceRows& sequence : sequences) sum += sequence.logits_rows();
  return sum;
}

std::int64_t Batch::rows() const {
  std::int64_t sum = 0;
  for (const MicroBatch& micro_batch : micro_batches) sum += micro_batch.rows();
  return sum;
}

std::vector<MicroBatch> split_evenly(std::vector<SequenceRows> sequences, std::int32_t count) {
  TANDEM_CHECK(count >= 1, format("{} micro-batches", count));
  std::vector<std::size_t> largest_first(sequences.size());
  std::iota(largest_first.begin(), largest_first.end(), std::size_t{0});
  std::ranges::sort(largest_first, [&](std::size_t a, std::size_t b) {
    return std::pair(-sequences[a].rows(), a) < std::pair(-sequences[b].rows(), b);
  });

  std::vector<std::int64_t> rows(static_cast<std::size_t>(count), 0);
  std::vector<std::size_t> home(sequences.size());
  for (std::size_t i : largest_first) {
    const auto emptiest = std::ranges::min_element(rows);
    home[i] = static_cast<std::size_t>(emptiest - rows.begin());
    *emptiest += sequences[i].rows();
  }

  std::vector<MicroBatch> dealt(rows.size());
  for (std::size_t i = 0; i < sequences.size(); ++i) dealt[home[i]].sequences.push_back(std::move(sequences[i]));
  std::erase_if(dealt, [](const MicroBatch& micro_batch) { return micro_batch.sequences.empty(); });
  return dealt;
}

}  // namespace tandem
