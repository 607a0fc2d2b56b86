// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Operators that treat each row by itself, products aside.
#include <cmath>
#include <vector>

#include "ops/cpu/machine.h"
#include "ops/cpu/packed_weight.h"

namespace tandem::cpu {

void run(Machine& machine, const EmbedRows& op) {
  const PackedWeight& table = packed(op.table);
  machine.split(op.out.rows(), table.k(), [&](int, std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) table.read_row(op.ids.as<const std::int32_t>()[i], op.out.row<float>(i));
  });
}

void run(Machine& machine, const RmsNorm& op) {
  const std::int64_t columns = op.x.shape[1], width = op.weight.shape[0];
  machine.split(op.x.rows(), columns, [&](int, std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      for (std::int64_t c = 0; c < columns; c += width)
        machine.kernels.rms_norm(op.out.row<float>(i) + c, op.x.row<float>(i) + c, op.weight.f32(), width, op.eps);
  });
}

void run(Machine& machine, const AddRmsNorm& op) {
  const std::int64_t columns = op.x.shape[1];
  machine.split(op.x.rows(), 2 * columns, [&](int, std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      float* residual = op.residual.row<float>(i);
      machine.kernels.add(residual, op.x.row<float>(i), columns);
      machine.kernels.rms_norm(op.out.row<float>(i), residual, op.weight.f32(), columns, op.eps);
    }
  });
}

void run(Machine& machine, const Rope& op) {
  const std::int64_t pairs = op.inv_freq.shape[0];
  constexpr std::int64_t kSineCost = 20;  // a sine and a cosine, in elements
  machine.split(op.x.rows(), op.x.shape[1] + kSineCost * pairs, [&](int thread, std::int64_t begin, std::int64_t end) {
    float* cosines = machine.scratch(thread, 2 * pairs);
    float* sines = cosines + pairs;
    for (std::int64_t i = begin; i < end; ++i) {
      const auto position = static_cast<float>(op.positions.as<const std::int32_t>()[i]);
      for (std::int64_t m = 0; m < pairs; ++m) {
        const float angle = position * op.inv_freq.f32()[m];
        cosines[m] = op.scale * std::cos(angle);
        sines[m] = op.scale * std::sin(angle);
      }
      const std::int64_t step = op.interleaved ? 2 : 1;
      for (std::int64_t h = op.first; h < op.x.shape[1]; h += op.head_dim) {
        float* first = op.x.row<float>(i) + h;
        float* second = first + (op.interleaved ? 1 : pairs);
        for (std::int64_t m = 0; m < pairs; ++m, first += step, second += step) {
          const float a = *first, b = *second;
          *first = a * cosines[m] - b * sines[m];
          *second = b * cosines[m] + a * sines[m];
        }
      }
    }
  });
}

void run(Machine& machine, const GateHeads& op) {
  const std::int64_t heads = op.gates.shape[1], dim = op.x.shape[1] / heads;
  machine.split(op.x.rows(), op.x.shape[1], [&](int, std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      float* x = op.x.row<float>(i);
      for (std::int64_t h = 0; h < heads; ++h, x += dim) {
        const float factor = 1.0f / (1.0f + std::exp(-op.gates.row<float>(i)[h]));
        for (std::int64_t c = 0; c < dim; ++c) x[c] *= factor;
      }
    }
  });
}

void run(Machine& machine, const SwiGlu& op) {
  const std::int64_t width = op.out.shape[1];
  constexpr std::int64_t kExponentialCost = 4;  // in elements
  machine.split(op.out.rows(), kExponentialCost * width, [&](int, std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const float* gate = op.gate_up.row<float>(i);
      machine.kernels.swiglu(op.out.row<float>(i), gate, gate + width, width, op.limit);
    }
  });
}

void run(Machine& machine, const Sample& op) {
  const std::int64_t vocab = op.logits.shape[1];
  machine.split(op.logits.rows(), 4 * vocab, [&](int, std::int64_t begin, std::int64_t end) {
    std::vector<float> scratch;
    for (std::int64_t i = begin; i < end; ++i) {
      const std::span logits(op.logits.row<const float>(i), static_cast<std::size_t>(vocab));
      op.out[i] = sample_row(op.rows[i], logits, scratch);
    }
  });
}

}  // namespace tandem::cpu
