// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Operators that only vision towers have.
#include <algorithm>
#include <cmath>

#include "ops/reference/reference.h"

namespace tandem::reference {

void run(const AddRows& op) {
  for (std::int64_t i = 0; i < op.sum.rows(); ++i) {
    const float* x = op.x.row<float>(op.x.rows() == 1 ? 0 : i);
    for (std::int64_t c = 0; c < op.sum.shape[1]; ++c) op.sum.row<float>(i)[c] += x[c];
  }
}

void run(const AddLayerNorm& op) {
  const std::int64_t columns = op.x.shape[1];
  for (std::int64_t i = 0; i < op.x.rows(); ++i) {
    const float* x = op.x.row<float>(i);
    float sum = 0, squares = 0;
    for (std::int64_t c = 0; c < columns; ++c) sum += x[c];
    const float mean = sum / static_cast<float>(columns);
    for (std::int64_t c = 0; c < columns; ++c) squares += (x[c] - mean) * (x[c] - mean);
    const float scale = 1.0f / std::sqrt(squares / static_cast<float>(columns) + op.eps);
    for (std::int64_t c = 0; c < columns; ++c)
      op.residual.row<float>(i)[c] += (x[c] - mean) * scale * op.weight.f32()[c] + op.bias.f32()[c];
  }
}

void run(const QuickGelu& op) {
  for (std::int64_t i = 0; i < op.x.rows(); ++i) {
    for (std::int64_t c = 0; c < op.x.shape[1]; ++c) {
      const float x = op.x.row<float>(i)[c];
      op.out.row<float>(i)[c] = x / (1.0f + std::exp(-1.702f * x));
    }
  }
}

void run(const Im2Col& op) {
  const std::int64_t height = op.height(), out_width = op.steps(op.width), channels = op.x.shape[1];
  for (std::int64_t r = 0; r < op.out.rows(); ++r) {
    float* out = op.out.row<float>(r);
    for (std::int64_t c = 0; c < channels; ++c) {
      for (std::int64_t ky = 0; ky < op.kernel; ++ky) {
        for (std::int64_t kx = 0; kx < op.kernel; ++kx) {
          const std::int64_t y = r / out_width * op.stride - op.padding + ky;
          const std::int64_t x = r % out_width * op.stride - op.padding + kx;
          const bool inside = y >= 0 && y < height && x >= 0 && x < op.width;
          *out++ = inside ? op.x.row<float>(y * op.width + x)[c] : 0.0f;
        }
      }
    }
  }
}

void run(const FullAttention& op) {
  const std::int64_t rows = op.q.rows(), dim = op.q.shape[1] / op.heads;
  std::vector<float> scores(static_cast<std::size_t>(rows));
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t begin = 0; begin < op.q.shape[1]; begin += dim) {
      const float* q = op.q.row<float>(r) + begin;
      float top = -INFINITY;
      for (std::int64_t t = 0; t < rows; ++t) {
        float dot = 0;
        for (std::int64_t i = 0; i < dim; ++i) dot += q[i] * op.k.row<float>(t)[begin + i];
        scores[t] = dot * op.scale;
        top = std::max(top, scores[t]);
      }
      float total = 0;
      for (std::int64_t t = 0; t < rows; ++t) total += scores[t] = std::exp(scores[t] - top);
      float* out = op.out.row<float>(r) + begin;
      std::fill(out, out + dim, 0.0f);
      for (std::int64_t t = 0; t < rows; ++t)
        for (std::int64_t i = 0; i < dim; ++i) out[i] += scores[t] * op.v.row<float>(t)[begin + i];
      for (std::int64_t i = 0; i < dim; ++i) out[i] /= total;
    }
  }
}

}  // namespace tandem::reference
