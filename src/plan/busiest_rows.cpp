// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "plan/busiest_rows.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

namespace tandem {

namespace {

// z with Φ(z)^gpus = share, by halving.
double deviation_of_most(double share, double gpus) {
  double low = -10, high = 10;
  for (int i = 0; i < 60; ++i) {
    const double z = (low + high) / 2;
    (std::pow(std::erfc(-z / std::numbers::sqrt2) / 2, gpus) < share ? low : high) = z;
  }
  return low;
}

}  // namespace

BusiestRows::BusiestRows(std::int32_t experts, std::int32_t experts_per_token, std::int32_t gpus, std::int32_t draws)
    : rows_of_gpu_(static_cast<double>(experts_per_token) / gpus) {
  const double all = experts, here = all / gpus;
  if (experts > 1) variance_ = rows_of_gpu_ * (1 - experts_per_token / all) * (all - here) / (all - 1);
  if (gpus < 2 || variance_ <= 0) {
    deviations_.assign(static_cast<std::size_t>(draws), 0);
    return;
  }
  for (int i = 0; i < draws; ++i) deviations_.push_back(deviation_of_most((i + 0.5) / draws, gpus));
  const double mean = std::accumulate(deviations_.begin(), deviations_.end(), 0.0) / draws;
  double variance = 0;
  for (const double z : deviations_) variance += (z - mean) * (z - mean) / draws;
  // Less what all of them share: z - mean of all z, whose variance is less by 1 / G, as much as a count is spread.
  const double wider = std::sqrt(gpus / (gpus - 1.0));
  const double spread = variance > 0 ? wider * std::sqrt(std::max(0.0, 1 - 1 / (gpus * variance))) : 0;
  mean_deviation_ = wider * mean;
  for (double& z : deviations_) z = mean_deviation_ + spread * (z - mean);
}

double BusiestRows::mean(double rows) const {
  return rows * rows_of_gpu_ + mean_deviation_ * std::sqrt(rows * variance_);
}

// mean(N') = the draw's rows is a quadratic equation of the root of N'.
std::vector<double> BusiestRows::drawn(double rows) const {
  std::vector<double> all;
  all.reserve(deviations_.size());
  const double half = mean_deviation_ * std::sqrt(variance_) / 2;
  for (const double deviation : deviations_) {
    const double here = std::max(0.0, rows * rows_of_gpu_ + deviation * std::sqrt(rows * variance_));
    const double root = (std::sqrt(half * half + rows_of_gpu_ * here) - half) / rows_of_gpu_;
    all.push_back(root * root);
  }
  return all;
}

}  // namespace tandem
