// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Int8 arithmetic as its parts define it: rounding, widening, products in f32.
#include "ops/int8_rows.h"
#include "ops/reference/reference.h"

namespace tandem::reference {

namespace {

// Rows of dense f32, rounded and widened again.
std::vector<float> rounded(const Tensor& x) {
  const std::int64_t columns = x.shape[1];
  std::vector<float> out(static_cast<std::size_t>(x.rows() * columns));
  std::vector<std::int8_t> codes(static_cast<std::size_t>(columns));
  std::vector<float> scales(static_cast<std::size_t>(columns / kInt8Group));
  for (std::int64_t i = 0; i < x.rows(); ++i) {
    round_row_to_int8(x.row<float>(i), columns, codes.data(), scales.data());
    for (std::size_t c = 0; c < codes.size(); ++c)
      out[static_cast<std::size_t>(i * columns) + c] = static_cast<float>(codes[c]) * scales[c / kInt8Group];
  }
  return out;
}

Tensor shaped_as(const Tensor& x, std::vector<float>& values) {
  return Tensor(values.data(), DType::kF32, {x.rows(), x.shape[1]});
}

}  // namespace

void run(const Int8MatMul& op) {
  std::vector<float> x = rounded(op.x);
  run(MatMul{op.out, shaped_as(op.x, x), op.weight, op.slices});
}

void run(const Int8GroupedMatMul& op) {
  std::vector<float> x = rounded(op.x);
  run(GroupedMatMul{op.out, shaped_as(op.x, x), op.experts, op.offsets, op.slices});
}

}  // namespace tandem::reference
