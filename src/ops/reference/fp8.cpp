// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// FP8 arithmetic as its parts define it: rounding to E4M3, widening, products in f32.
#include "ops/f8_rows.h"
#include "ops/reference/reference.h"

namespace tandem::reference {

namespace {

// A matrix with its memory.
struct Matrix {
  Matrix(std::int64_t rows, std::int64_t columns)
      : values(static_cast<std::size_t>(rows * columns)), tensor(values.data(), DType::kF32, {rows, columns}) {}
  std::vector<float> values;
  Tensor tensor;
};

Matrix rounded(const Tensor& x) {
  const std::int64_t columns = x.shape[1];
  Matrix out(x.rows(), columns);
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(columns));
  std::vector<float> scales(static_cast<std::size_t>(f8_groups(columns)));
  for (std::int64_t i = 0; i < x.rows(); ++i) {
    quantise_row(x.row<float>(i), columns, codes.data(), scales.data());
    widen_row(codes.data(), scales.data(), columns, out.tensor.row<float>(i));
  }
  return out;
}

}  // namespace

void run(const Fp8MatMul& op) {
  run(MatMul{op.out, rounded(op.x).tensor, op.weight, op.slices});
}

void run(const Fp8Experts& op) {
  const std::int64_t count = op.out.rows(), hidden = op.x.shape[1], width = op.down.front()->k();
  std::vector<std::int32_t> rows(static_cast<std::size_t>(count)), outputs(rows), offsets(op.gate_up.size() + 1);
  Matrix weights(count, 1), x(count, hidden), gate_up(count, 2 * width), activated(count, width), y(count, hidden);
  const auto index = [](std::vector<std::int32_t>& values) {
    return Tensor(values.data(), DType::kI32, {static_cast<std::int64_t>(values.size())});
  };
  run(GroupByExpert{index(rows), index(outputs), weights.tensor, index(offsets), op.expert_ids, op.expert_weights,
                    op.begin});
  run(GatherRows{x.tensor, rounded(op.x).tensor, index(rows)});
  run(GroupedMatMul{gate_up.tensor, x.tensor, op.gate_up, index(offsets), KSlices::whole(hidden)});
  run(SwiGlu{activated.tensor, gate_up.tensor});
  run(GroupedMatMul{y.tensor, rounded(activated.tensor).tensor, op.down, index(offsets), KSlices::whole(width)});
  run(ScatterScaledRows{op.out, y.tensor, index(outputs), weights.tensor});
}

}  // namespace tandem::reference
