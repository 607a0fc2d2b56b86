// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/bf16_products.cuh"
#include "ops/cuda/product.cuh"

namespace tandem::cuda {

void run(Machine& machine, const MatMul& op) {
  if (op.x.rows() == 0 || multiply_bf16(machine, op)) return;
  const CudaWeight& weight = of(op.weight);
  const ProductArguments<1> arguments{.out = rows_of(op.out),
                                      .x = rows_of(op.x),
                                      .rows = static_cast<std::int32_t>(op.x.rows()),
                                      .x_aligned = begins_on_16_bytes(op.x),
                                      .slices = op.slices,
                                      .offsets = nullptr,
                                      .experts = 1,
                                      .x_shift = 0,
                                      .out_shift = 0,
                                      .weights = {weight.image()}};
  launch_product(
      machine, arguments, op.x.rows(), [&](int columns) { return weight.tiles(columns); },
      [&](int rows) { return divide_up<std::int64_t>(op.x.rows(), rows); });
}

}  // namespace tandem::cuda
