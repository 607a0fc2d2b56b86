// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Operators that only vision towers have. Nearly all of a tower's time goes to products; what is here needs to be no
// more than decent, and uses the kernels that text has.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "ops/cpu/machine.h"

namespace tandem::cpu {

void run(Machine& machine, const AddRows& op) {
  const std::int64_t columns = op.sum.shape[1];
  machine.split(op.sum.rows(), columns, [&](int, std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      machine.kernels.add(op.sum.row<float>(i), op.x.row<float>(op.x.rows() == 1 ? 0 : i), columns);
  });
}

void run(Machine& machine, const AddLayerNorm& op) {
  const std::int64_t columns = op.x.shape[1];
  machine.split(op.x.rows(), 3 * columns, [&](int, std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const float* x = op.x.row<float>(i);
      float* residual = op.residual.row<float>(i);
      float sum = 0, squares = 0;
      for (std::int64_t c = 0; c < columns; ++c) sum += x[c];
      const float mean = sum / static_cast<float>(columns);
      for (std::int64_t c = 0; c < columns; ++c) squares += (x[c] - mean) * (x[c] - mean);
      const float scale = 1.0f / std::sqrt(squares / static_cast<float>(columns) + op.eps);
      const float *weight = op.weight.f32(), *bias = op.bias.f32();
      for (std::int64_t c = 0; c < columns; ++c) residual[c] += (x[c] - mean) * scale * weight[c] + bias[c];
    }
  });
}

void run(Machine& machine, const QuickGelu& op) {
  const std::int64_t columns = op.x.shape[1];
  constexpr std::int64_t kExponentialCost = 4;  // in elements
  machine.split(op.x.rows(), kExponentialCost * columns, [&](int thread, std::int64_t begin, std::int64_t end) {
    float* powers = machine.scratch(thread, columns);
    for (std::int64_t i = begin; i < end; ++i) {
      const float* x = op.x.row<float>(i);
      float* out = op.out.row<float>(i);
      for (std::int64_t c = 0; c < columns; ++c) powers[c] = -1.702f * x[c];
      machine.kernels.exponential(powers, powers, columns);
      for (std::int64_t c = 0; c < columns; ++c) out[c] = x[c] / (1.0f + powers[c]);
    }
  });
}

void run(Machine& machine, const Im2Col& op) {
  const std::int64_t height = op.height(), out_width = op.steps(op.width), channels = op.x.shape[1];
  machine.split(op.out.rows(), op.out.shape[1], [&](int, std::int64_t begin, std::int64_t end) {
    const std::int64_t area = static_cast<std::int64_t>(op.kernel) * op.kernel;
    for (std::int64_t r = begin; r < end; ++r) {
      float* out = op.out.row<float>(r);
      const std::int64_t top = r / out_width * op.stride - op.padding;
      const std::int64_t left = r % out_width * op.stride - op.padding;
      for (std::int64_t window = 0; window < area; ++window) {
        const std::int64_t y = top + window / op.kernel, x = left + window % op.kernel;
        const bool inside = y >= 0 && y < height && x >= 0 && x < op.width;
        const float* from = inside ? op.x.row<float>(y * op.width + x) : nullptr;
        for (std::int64_t c = 0; c < channels; ++c) out[c * area + window] = from ? from[c] : 0.0f;
      }
    }
  });
}

namespace {

// One head's keys and values in the layout of the cache, block after block, for the kernel that attends to a cache.
struct HeadBlocks {
  static constexpr std::int64_t kLanesMax = 16;

  std::int64_t rows, dim, padded;  // padded: of a value, to whole vectors
  float* data;

  HeadBlocks(std::int64_t rows, std::int64_t dim)
      : rows(rows), dim(dim), padded((dim + kLanesMax - 1) / kLanesMax * kLanesMax), data(nullptr) {}
  std::int64_t count() const { return (rows + kTokensPerBlock - 1) / kTokensPerBlock; }
  std::int64_t k_floats() const { return dim * kTokensPerBlock; }
  std::int64_t block_floats() const { return k_floats() + kTokensPerBlock * padded; }

  void fill(const FullAttention& op, std::int64_t head) {
    for (std::int64_t t = 0; t < rows; ++t) {
      float* block = data + t / kTokensPerBlock * block_floats();
      const std::int64_t at = t % kTokensPerBlock;
      const float *k = op.k.row<float>(t) + head * dim, *v = op.v.row<float>(t) + head * dim;
      for (std::int64_t i = 0; i < dim; ++i) block[i * kTokensPerBlock + at] = k[i];
      std::copy_n(v, dim, block + k_floats() + at * padded);
    }
  }
};

}  // namespace

void run(Machine& machine, const FullAttention& op) {
  const std::int64_t rows = op.q.rows(), dim = op.q.shape[1] / op.heads;
  const std::int64_t groups = (rows + kQueriesMax - 1) / kQueriesMax;
  const HeadBlocks layout(rows, dim);
  const std::int64_t kernel_floats = (attention_scratch_floats(dim, layout.padded, layout.padded) + 15) / 16 * 16;
  // A thread takes a stretch of (head, group of queries) and lays out each head that it meets.
  machine.split(op.heads * groups, 2 * rows * dim, [&](int thread, std::int64_t begin, std::int64_t end) {
    HeadBlocks blocks = layout;
    AttentionShare share;
    const std::int64_t blocks_floats = layout.count() * layout.block_floats();
    share.scratch = machine.scratch(thread, kernel_floats + blocks_floats + layout.count());
    blocks.data = share.scratch + kernel_floats;
    auto* table = reinterpret_cast<std::int32_t*>(blocks.data + blocks_floats);
    std::iota(table, table + layout.count(), 0);
    share.blocks = table;
    share.k = reinterpret_cast<const std::byte*>(blocks.data);
    share.v = reinterpret_cast<const std::byte*>(blocks.data + layout.k_floats());
    share.next = share.k;
    share.block_stride = layout.block_floats() * static_cast<std::int64_t>(sizeof(float));
    share.is_f32 = true;
    share.k_dim = share.v_dim = static_cast<int>(dim);
    share.v_padded = share.v_stride = static_cast<int>(layout.padded);
    share.scale = op.scale;
    for (std::int64_t unit = begin; unit < end; ++unit) {
      const std::int64_t head = unit / groups, first = unit % groups * kQueriesMax;
      if (unit == begin || first == 0) blocks.fill(op, head);
      share.queries = static_cast<int>(std::min<std::int64_t>(kQueriesMax, rows - first));
      for (int i = 0; i < share.queries; ++i) {
        share.q[i] = op.q.row<float>(first + i) + head * dim;
        share.out[i] = op.out.row<float>(first + i) + head * dim;
        share.begin[i] = 0;
        share.context[i] = static_cast<std::int32_t>(rows);
      }
      machine.kernels.attention(share);
    }
  });
}

}  // namespace tandem::cpu
