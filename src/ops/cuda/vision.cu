// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Operators that only vision towers have; their attention is attention/full_attention.cu. All are bound by memory: rows
// of thousands of patches, of which a thread has four neighbouring elements where these lie on 16 bytes, else one.
#include "ops/cuda/machine.cuh"
#include "ops/cuda/reduce.cuh"

namespace tandem::cuda {

namespace {

constexpr int kThreads = 256;

// What one access moves.
template <int kWide>
struct alignas(4 * kWide) Few {
  float values[kWide];
};

// The first of this thread's elements of a row.
template <int kWide>
__device__ std::int32_t my_first() {
  return static_cast<std::int32_t>(blockIdx.y * kThreads + threadIdx.x) * kWide;
}

// x_step: 0 where one row of x is for all.
template <int kWide>
__global__ void __launch_bounds__(kThreads)
    add_rows(Rows<float> sum, Rows<float> x, std::int32_t x_step, std::int32_t columns) {
  const std::int32_t first = my_first<kWide>();
  if (first >= columns) return;
  auto& to = *reinterpret_cast<Few<kWide>*>(sum[blockIdx.x] + first);
  Few<kWide> total = to;
  const auto added = *reinterpret_cast<const Few<kWide>*>(x[static_cast<std::int64_t>(blockIdx.x) * x_step] + first);
#pragma unroll
  for (int i = 0; i < kWide; ++i) total.values[i] += added.values[i];
  to = total;
}

template <int kWide>
__global__ void __launch_bounds__(kThreads) quick_gelu(Rows<float> out, Rows<float> x, std::int32_t columns) {
  const std::int32_t first = my_first<kWide>();
  if (first >= columns) return;
  auto few = *reinterpret_cast<const Few<kWide>*>(x[blockIdx.x] + first);
#pragma unroll
  for (float& value : few.values) value = value / (1.0f + expf(-1.702f * value));
  *reinterpret_cast<Few<kWide>*>(out[blockIdx.x] + first) = few;
}

// A block has a row.
__global__ void __launch_bounds__(kThreads) add_layer_norm(Rows<float> residual, Rows<float> x, const float* weight,
                                                           const float* bias, std::int32_t columns, float eps) {
  __shared__ float sums[kThreads / 32], squares_of_warps[kThreads / 32];
  const float* from = x[blockIdx.x];
  float* to = residual[blockIdx.x];
  const auto first = static_cast<std::int32_t>(threadIdx.x);
  float sum = 0, squares = 0;
  for (std::int32_t c = first; c < columns; c += kThreads) sum += from[c];
  const float mean = block_sum<kThreads>(sum, sums) / static_cast<float>(columns);
  for (std::int32_t c = first; c < columns; c += kThreads) squares += (from[c] - mean) * (from[c] - mean);
  squares = block_sum<kThreads>(squares, squares_of_warps);
  const float scale = 1.0f / sqrtf(squares / static_cast<float>(columns) + eps);
  for (std::int32_t c = first; c < columns; c += kThreads) to[c] += (from[c] - mean) * scale * weight[c] + bias[c];
}

struct Windows {
  Rows<float> out, x;
  std::int32_t columns, width, height, out_width, kernel, stride, padding;
};

__global__ void __launch_bounds__(kThreads) im2col(Windows w) {
  const auto column = static_cast<std::int32_t>(blockIdx.y * kThreads + threadIdx.x);
  if (column >= w.columns) return;
  const auto row = static_cast<std::int32_t>(blockIdx.x);
  const std::int32_t area = w.kernel * w.kernel, channel = column / area, at = column % area;
  const std::int32_t y = row / w.out_width * w.stride - w.padding + at / w.kernel;
  const std::int32_t x = row % w.out_width * w.stride - w.padding + at % w.kernel;
  const bool inside = y >= 0 && y < w.height && x >= 0 && x < w.width;
  w.out[row][column] = inside ? w.x[static_cast<std::int64_t>(y) * w.width + x][channel] : 0.0f;
}

// For a thread for each so many elements of every row.
dim3 grid_of(std::int64_t rows, std::int64_t columns, int wide) {
  return dim3(static_cast<unsigned>(rows), static_cast<unsigned>(divide_up<std::int64_t>(columns, kThreads * wide)));
}

bool in_fours(const Tensor& t) {
  return reinterpret_cast<std::uintptr_t>(t.data) % 16 == 0 && (t.rows() == 1 || t.row_stride % 4 == 0) &&
         t.shape[1] % 4 == 0;
}

}  // namespace

void run(Machine& machine, const AddRows& op) {
  if (op.sum.shape.elements() == 0) return;
  const auto columns = static_cast<std::int32_t>(op.sum.shape[1]);
  const std::int32_t step = op.x.rows() == 1 ? 0 : 1;
  if (in_fours(op.sum) && in_fours(op.x))
    add_rows<4><<<grid_of(op.sum.rows(), columns, 4), kThreads, 0, machine.stream>>>(rows_of(op.sum), rows_of(op.x),
                                                                                     step, columns);
  else
    add_rows<1><<<grid_of(op.sum.rows(), columns, 1), kThreads, 0, machine.stream>>>(rows_of(op.sum), rows_of(op.x),
                                                                                     step, columns);
  need(cudaGetLastError(), "starting add_rows");
}

void run(Machine& machine, const AddLayerNorm& op) {
  if (op.x.rows() == 0) return;
  add_layer_norm<<<static_cast<unsigned>(op.x.rows()), kThreads, 0, machine.stream>>>(
      rows_of(op.residual), rows_of(op.x), op.weight.f32(), op.bias.f32(), static_cast<std::int32_t>(op.x.shape[1]),
      op.eps);
  need(cudaGetLastError(), "starting add_layer_norm");
}

void run(Machine& machine, const QuickGelu& op) {
  if (op.x.shape.elements() == 0) return;
  const auto columns = static_cast<std::int32_t>(op.x.shape[1]);
  if (in_fours(op.out) && in_fours(op.x))
    quick_gelu<4>
        <<<grid_of(op.x.rows(), columns, 4), kThreads, 0, machine.stream>>>(rows_of(op.out), rows_of(op.x), columns);
  else
    quick_gelu<1>
        <<<grid_of(op.x.rows(), columns, 1), kThreads, 0, machine.stream>>>(rows_of(op.out), rows_of(op.x), columns);
  need(cudaGetLastError(), "starting quick_gelu");
}

void run(Machine& machine, const Im2Col& op) {
  if (op.out.shape.elements() == 0) return;
  const Windows w{.out = rows_of(op.out),
                  .x = rows_of(op.x),
                  .columns = static_cast<std::int32_t>(op.out.shape[1]),
                  .width = op.width,
                  .height = static_cast<std::int32_t>(op.height()),
                  .out_width = static_cast<std::int32_t>(op.steps(op.width)),
                  .kernel = op.kernel,
                  .stride = op.stride,
                  .padding = op.padding};
  im2col<<<grid_of(op.out.rows(), w.columns, 1), kThreads, 0, machine.stream>>>(w);
  need(cudaGetLastError(), "starting im2col");
}

}  // namespace tandem::cuda
