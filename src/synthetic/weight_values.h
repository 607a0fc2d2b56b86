// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Values of synthetic weights. An element's value depends on the seed, the tensor's name and the element's number, on
// nothing else, so that any thread makes any piece, and a tensor is the same in every checkpoint that has it.
//
// Eight elements cost one 64-bit mix and eight look-ups: each byte of the mix chooses one of the 256 quantiles of a
// normal distribution, which lie in a table, scaled and in the type of the file.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "tensor/dtype.h"

namespace tandem {

struct NormalSpread {
  float mean = 0;
  float deviation = 1;
};

class WeightValues {
 public:
  // dtype is one of f32, bf16, f8_e4m3.
  WeightValues(std::uint64_t seed, std::string_view name, DType dtype, const NormalSpread& spread);
  // The bytes from offset on; offset is a multiple of eight elements.
  void fill(std::uint64_t offset, std::span<std::byte> out) const;

 private:
  std::uint64_t seed_;
  DType dtype_;
  std::array<std::uint32_t, 256> table_;  // the lower bits of each entry are the element
};

}  // namespace tandem
