// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The rows of a layer's busiest FFN GPU, for which all others wait, when tokens choose experts at random: how much they
// differ from layer to layer and from micro-batch to micro-batch.
//
// N rows choose k of E experts each, of which a GPU of G holds E / G. It gets a = N k / G rows on average, with the
// variance N · k / G · (1 - k / E) · (E - E / G) / (E - 1). Counts are taken to be normal, with a sum that is fixed:
// the busiest one's deviation is that of the largest of G independent ones, Φ(z)^G, from their mean. Measured times of
// N rows are averages over such draws. A draw that has as many rows as N' rows have on average is taken to take what N'
// rows were measured to take.
#pragma once

#include <cstdint>
#include <vector>

namespace tandem {

class BusiestRows {
 public:
  // All positive, with no more chosen experts than there are. draws: equally likely ones.
  BusiestRows(std::int32_t experts, std::int32_t experts_per_token, std::int32_t gpus, std::int32_t draws);

  double mean(double rows) const;  // of the busiest GPU, when so many rows choose
  // N' of every draw, from the fewest to the most; rows itself where nothing is left to chance.
  std::vector<double> drawn(double rows) const;

 private:
  double rows_of_gpu_ = 0, variance_ = 0;  // of one row that chooses
  double mean_deviation_ = 0;
  std::vector<double> deviations_;  // of the busiest GPU, in standard deviations of one
};

}  // namespace tandem
