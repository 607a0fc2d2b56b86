// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Random numbers, handed in and never global.
//
// Rng is a plain seeded sequence (SplitMix64) for tests, simulation and synthetic weights.
// random_at is stateless: the number for a (seed, position) pair, so that a step can be run again and the same token is
// drawn whatever the batch, layout or order (invariant 7).
#pragma once

#include <cstdint>

namespace tandem {

// The output function of SplitMix64: a bijection of 64 bits that passes avalanche tests.
constexpr std::uint64_t mix64(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

class Rng {
 public:
  explicit Rng(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() { return mix64(state_ += 0x9e3779b97f4a7c15ull); }
  // Uniform in [0, bound); bound > 0. The bias for bounds below 2^32 is under 2^-32.
  std::uint64_t below(std::uint64_t bound) {
    return static_cast<std::uint64_t>((static_cast<unsigned __int128>(next()) * bound) >> 64);
  }
  // Uniform in [0, 1), 53 bits.
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }
  // Roughly normal, mean 0 and deviation 1: the sum of twelve uniforms, enough for synthetic data.
  float normal() {
    double sum = -6;
    for (int i = 0; i < 12; ++i) sum += uniform();
    return static_cast<float>(sum);
  }

 private:
  std::uint64_t state_;
};

// Uniform in [0, 1) for one position of one request's random stream.
constexpr double random_at(std::uint64_t seed, std::uint64_t position) {
  return static_cast<double>(mix64(mix64(seed + 0x9e3779b97f4a7c15ull) + 0x9e3779b97f4a7c15ull * (position + 1)) >>
                             11) *
         0x1p-53;
}

}  // namespace tandem
