// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Sequences whose blocks are spread over a pool, as after a while of serving; several copies of them, so that a
// benchmark can rotate through more memory than a cache holds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace tandem::cuda {

struct PagedSequences {
  std::vector<std::int32_t> lengths;  // tokens
  int copies = 1;
  std::int32_t blocks_max = 0;       // of a sequence
  std::int32_t blocks = 0;           // of one copy
  std::vector<std::int32_t> tables;  // [copies, sequences, blocks_max]

  std::size_t table_size() const { return lengths.size() * static_cast<std::size_t>(blocks_max); }
  std::size_t pool_blocks() const { return static_cast<std::size_t>(blocks) * static_cast<std::size_t>(copies); }
  std::int32_t block(std::int32_t sequence, std::int32_t page) const {  // in copy 0
    return tables[static_cast<std::size_t>(std::int64_t{sequence} * blocks_max + page)];
  }
  // block · 64 + offset of every token of every copy, sequence after sequence.
  std::vector<std::int32_t> slots() const;
};

PagedSequences paged_sequences(const std::vector<std::int32_t>& lengths, int copies, std::uint32_t seed);

}  // namespace tandem::cuda
