// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include <algorithm>

#include "base/check.h"
#include "ops/cuda/bf16_products.cuh"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/product.cuh"

namespace tandem::cuda {

namespace {

// What a head has beyond the k elements that are projected.
__global__ void pass_rest(Rows<float> out, Rows<float> x, std::int32_t k, std::int32_t n, std::int32_t rest,
                          std::int32_t heads) {
  for (auto i = static_cast<std::int32_t>(threadIdx.x); i < heads * rest; i += static_cast<std::int32_t>(blockDim.x))
    out[blockIdx.x][i / rest * (n + rest) + n + i % rest] = x[blockIdx.x][i / rest * (k + rest) + k + i % rest];
}

}  // namespace

void run(Machine& machine, const GroupedMatMul& op) {
  const auto experts = static_cast<std::int64_t>(op.experts.size());
  if (op.x.rows() == 0 || experts == 0) return;
  TANDEM_CHECK(experts <= kWeightsOfLaunchMax, "more experts of one layer on one GPU than a launch can name");
  if (multiply_bf16(machine, op)) return;
  ProductArguments<kWeightsOfLaunchMax> arguments{.out = rows_of(op.out),
                                                  .x = rows_of(op.x),
                                                  .rows = static_cast<std::int32_t>(op.x.rows()),
                                                  .x_aligned = begins_on_16_bytes(op.x),
                                                  .slices = op.slices,
                                                  .offsets = op.offsets.as<const std::int32_t>(),
                                                  .experts = static_cast<std::int32_t>(experts),
                                                  .x_shift = 0,
                                                  .out_shift = 0,
                                                  .weights = {}};
  for (std::int64_t e = 0; e < experts; ++e) arguments.weights[e] = of(op.experts[e]).image();
  const auto column_tiles = [&](int columns) {
    std::int64_t tiles = 0;
    for (const Weight* expert : op.experts) tiles = std::max(tiles, of(expert).tiles(columns));
    return tiles;
  };
  // Who has how many rows is known on the device: there are at most so many tiles, some of them for nobody.
  launch_product(machine, arguments, divide_up(op.x.rows(), experts), column_tiles,
                 [&](int rows) { return std::min(op.x.rows(), op.x.rows() / rows + experts); });
}

void run(Machine& machine, const ProjectHeads& op) {
  const auto heads = static_cast<std::int64_t>(op.weights.size());
  if (op.x.rows() == 0) return;
  TANDEM_CHECK(heads <= kWeightsOfLaunchMax, "more heads than a launch can name");
  const CudaWeight& first = of(op.weights.front());
  const std::int64_t rest = op.x.shape[1] / heads - first.k();
  ProductArguments<kWeightsOfLaunchMax> arguments{.out = rows_of(op.out),
                                                  .x = rows_of(op.x),
                                                  .rows = static_cast<std::int32_t>(op.x.rows()),
                                                  .x_aligned = begins_on_16_bytes(op.x) && (first.k() + rest) % 4 == 0,
                                                  .slices = KSlices::whole(first.k()),
                                                  .offsets = nullptr,
                                                  .experts = static_cast<std::int32_t>(heads),
                                                  .x_shift = first.k() + rest,
                                                  .out_shift = first.n() + rest,
                                                  .weights = {}};
  for (std::int64_t h = 0; h < heads; ++h) arguments.weights[h] = of(op.weights[h]).image();
  launch_product(
      machine, arguments, op.x.rows(), [&](int columns) { return first.tiles(columns); },
      [&](int rows) { return divide_up<std::int64_t>(op.x.rows(), rows); });
  if (rest == 0) return;
  pass_rest<<<static_cast<unsigned>(op.x.rows()), 256, 0, machine.stream>>>(
      rows_of(op.out), rows_of(op.x), static_cast<std::int32_t>(first.k()), static_cast<std::int32_t>(first.n()),
      static_cast<std::int32_t>(rest), static_cast<std::int32_t>(heads));
  need(cudaGetLastError(), "starting project_heads");
}

}  // namespace tandem::cuda
