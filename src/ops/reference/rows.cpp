// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Operators that treat each row by itself: embedding, norms, products, rotation, activation, sampling.
#include <algorithm>
#include <cmath>

#include "ops/f8_rows.h"
#include "ops/reference/reference.h"

namespace tandem::reference {

void run(const EmbedRows& op) {
  const ReferenceWeight& table = of(op.table);
  for (std::int64_t i = 0; i < op.out.rows(); ++i) {
    const std::int32_t id = op.ids.as<const std::int32_t>()[i];
    for (std::int64_t c = 0; c < table.k(); ++c) op.out.row<float>(i)[c] = table.values[c * table.n() + id];
  }
}

void run(const RmsNorm& op) {
  const std::int64_t columns = op.x.shape[1], width = op.weight.shape[0];
  const float* weight = op.weight.f32();
  for (std::int64_t i = 0; i < op.x.rows(); ++i) {
    for (std::int64_t begin = 0; begin < columns; begin += width) {
      const float* x = op.x.row<float>(i) + begin;
      float* out = op.out.row<float>(i) + begin;
      float squares = 0;
      for (std::int64_t c = 0; c < width; ++c) squares += x[c] * x[c];
      const float scale = 1.0f / std::sqrt(squares / static_cast<float>(width) + op.eps);
      for (std::int64_t c = 0; c < width; ++c) out[c] = x[c] * scale * weight[c];
    }
  }
}

void run(const AddRmsNorm& op) {
  for (std::int64_t i = 0; i < op.x.rows(); ++i)
    for (std::int64_t c = 0; c < op.x.shape[1]; ++c) op.residual.row<float>(i)[c] += op.x.row<float>(i)[c];
  run(RmsNorm{op.out, op.residual, op.weight, op.eps});
}

namespace {

// out[rows, columns of one block] = tree over slices of x · weight. The block of columns keeps the sums in registers or
// L1; each output is summed over k in ascending order within its slice.
constexpr std::int64_t kColumns = 64;

void slice_product(const float* x, const ReferenceWeight& weight, std::int64_t column, std::int64_t width,
                   std::int32_t begin, std::int32_t end, float* sums) {
  for (std::int64_t c = 0; c < width; ++c) sums[c] = 0;
  for (std::int32_t k = begin; k < end; ++k) {
    const float* w = &weight.values[k * weight.n() + column];
    for (std::int64_t c = 0; c < width; ++c) sums[c] += x[k] * w[c];
  }
}

void tree_product(const float* x, const ReferenceWeight& weight, std::int64_t column, std::int64_t width,
                  const KSlices& slices, int first, int count, float* sums) {
  if (count == 1) return slice_product(x, weight, column, width, slices.bounds[first], slices.bounds[first + 1], sums);
  float right[kColumns];
  tree_product(x, weight, column, width, slices, first, count / 2, sums);
  tree_product(x, weight, column, width, slices, first + count / 2, count / 2, right);
  for (std::int64_t c = 0; c < width; ++c) sums[c] += right[c];
}

void product(const Tensor& out, const Tensor& x, const ReferenceWeight& weight, const KSlices& slices,
             std::int64_t row_begin, std::int64_t row_end) {
  for (std::int64_t column = 0; column < weight.n(); column += kColumns) {
    const std::int64_t width = std::min(kColumns, weight.n() - column);
    for (std::int64_t i = row_begin; i < row_end; ++i) {
      float sums[kColumns];
      tree_product(x.row<float>(i), weight, column, width, slices, 0, slices.count, sums);
      std::memcpy(out.row<float>(i) + column, sums, static_cast<std::size_t>(width) * sizeof(float));
    }
  }
}

}  // namespace

void run(const MatMul& op) {
  product(op.out, op.x, of(op.weight), op.slices, 0, op.x.rows());
}

void run(const GroupedMatMul& op) {
  for (std::size_t e = 0; e < op.experts.size(); ++e)
    product(op.out, op.x, of(op.experts[e]), op.slices, op.offsets.as<const std::int32_t>()[e],
            op.offsets.as<const std::int32_t>()[e + 1]);
}

void run(const Rope& op) {
  const std::int64_t pairs = op.inv_freq.shape[0];
  for (std::int64_t i = 0; i < op.x.rows(); ++i) {
    const auto position = static_cast<float>(op.positions.as<const std::int32_t>()[i]);
    for (std::int64_t h = 0; h < op.x.shape[1]; h += op.head_dim) {
      float* head = op.x.row<float>(i) + h + op.first;
      for (std::int64_t m = 0; m < pairs; ++m) {
        const float angle = position * op.inv_freq.f32()[m];
        const float cosine = op.scale * std::cos(angle), sine = op.scale * std::sin(angle);
        float& first = head[op.interleaved ? 2 * m : m];
        float& second = head[op.interleaved ? 2 * m + 1 : m + pairs];
        const float a = first, b = second;
        first = a * cosine - b * sine;
        second = b * cosine + a * sine;
      }
    }
  }
}

void run(const ProjectHeads& op) {
  const auto heads = static_cast<std::int64_t>(op.weights.size());
  const std::int64_t x_head = op.x.shape[1] / heads, out_head = op.out.shape[1] / heads;
  for (std::int64_t h = 0; h < heads; ++h) {
    const ReferenceWeight& weight = of(op.weights[h]);
    const Tensor x = op.x.slice_columns(h * x_head, x_head), out = op.out.slice_columns(h * out_head, out_head);
    product(out, x, weight, KSlices::whole(weight.k()), 0, x.rows());
    for (std::int64_t i = 0; i < x.rows(); ++i)
      std::copy(x.row<float>(i) + weight.k(), x.row<float>(i) + x_head, out.row<float>(i) + weight.n());
  }
}

void run(const GateHeads& op) {
  const std::int64_t heads = op.gates.shape[1], dim = op.x.shape[1] / heads;
  for (std::int64_t i = 0; i < op.x.rows(); ++i)
    for (std::int64_t c = 0; c < op.x.shape[1]; ++c)
      op.x.row<float>(i)[c] *= 1.0f / (1.0f + std::exp(-op.gates.row<float>(i)[c / dim]));
}

void run(const SwiGlu& op) {
  const std::int64_t width = op.out.shape[1];
  for (std::int64_t i = 0; i < op.out.rows(); ++i) {
    const float* gate = op.gate_up.row<float>(i);
    for (std::int64_t c = 0; c < width; ++c) {
      float activated = gate[c] / (1.0f + std::exp(-gate[c])), up = gate[width + c];
      if (op.limit > 0) {
        if (activated > op.limit) activated = op.limit;  // NaN stays NaN
        if (up > op.limit) up = op.limit;
        if (up < -op.limit) up = -op.limit;
      }
      op.out.row<float>(i)[c] = activated * up;
    }
  }
}

void run(const QuantiseRows& op) {
  for (std::int64_t i = 0; i < op.x.rows(); ++i)
    quantise_row(op.x.row<float>(i), op.x.shape[1], op.codes.row<std::uint8_t>(i), op.scales.row<float>(i));
}

void run(const WidenRows& op) {
  for (std::int64_t i = 0; i < op.out.rows(); ++i)
    widen_row(op.codes.row<std::uint8_t>(i), op.scales.row<float>(i), op.out.shape[1], op.out.row<float>(i));
}

void run(const Sample& op) {
  std::vector<float> scratch;
  const auto vocab = static_cast<std::size_t>(op.logits.shape[1]);
  for (std::size_t i = 0; i < op.rows.size(); ++i)
    op.out[i] = sample_row(op.rows[i], {op.logits.row<float>(static_cast<std::int64_t>(i)), vocab}, scratch);
}

}  // namespace tandem::reference
