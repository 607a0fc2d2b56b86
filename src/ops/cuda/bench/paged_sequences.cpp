// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/bench/paged_sequences.h"

#include <algorithm>
#include <numeric>
#include <random>

#include "ops/cuda/attention/decode_schedule.h"

namespace tandem::cuda {

PagedSequences paged_sequences(const std::vector<std::int32_t>& lengths, int copies, std::uint32_t seed) {
  PagedSequences s{.lengths = lengths, .copies = copies, .tables = {}};
  for (const std::int32_t length : lengths) {
    s.blocks_max = std::max(s.blocks_max, pages_of(length));
    s.blocks += pages_of(length);
  }
  std::vector<std::int32_t> pool(s.pool_blocks());
  std::iota(pool.begin(), pool.end(), 0);
  std::shuffle(pool.begin(), pool.end(), std::mt19937(seed));
  for (std::size_t copy = 0, next = 0; copy < static_cast<std::size_t>(copies); ++copy)
    for (const std::int32_t length : lengths)
      for (std::int32_t page = 0; page < s.blocks_max; ++page)
        s.tables.push_back(page < pages_of(length) ? pool[next++] : 0);
  return s;
}

std::vector<std::int32_t> PagedSequences::slots() const {
  std::vector<std::int32_t> slots;
  for (std::size_t row = 0; row < lengths.size() * static_cast<std::size_t>(copies); ++row)
    for (std::int32_t t = 0; t < lengths[row % lengths.size()]; ++t) {
      const auto page = static_cast<std::size_t>(t / kDecodePageTokens);
      slots.push_back(tables[row * static_cast<std::size_t>(blocks_max) + page] * kDecodePageTokens +
                      t % kDecodePageTokens);
    }
  return slots;
}

}  // namespace tandem::cuda
