// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Operators that treat each row by itself, products aside. All are bound by memory, or by latency where rows are few: a
// thread has one element, where elements need nothing of each other, and wide norms have many threads.
#include <cuda_fp8.h>

#include "base/scalar.h"
#include "ops/cuda/eight.cuh"
#include "ops/cuda/reduce.cuh"
#include "ops/f8_rows.h"

namespace tandem::cuda {

namespace {

constexpr int kThreads = 256;

__global__ void embed_rows(Rows<float> out, const WeightImage* table, const std::int32_t* ids) {
  std::int32_t column = ids[blockIdx.x];  // of the matrix: a row of the table
  for (std::int32_t s = 0; s < table->segments; ++s) {
    const Segment& segment = table->segment[s];
    if (column < segment.first || column >= segment.first + segment.columns) continue;
    column -= segment.first;
    float* row = out[blockIdx.x];
    with_store(segment.store, [&](auto store) {
      for (std::int32_t k = static_cast<std::int32_t>(threadIdx.x) * kLaneValues; k < table->k;
           k += kThreads * kLaneValues) {
        Eight<decltype(store)::value> eight;
        eight.load(segment, column, k / kStep, k % kStep / kLaneValues);
        float values[8];
        eight.widen(values);
        for (int i = 0; i < 8 && k + i < table->k; ++i) row[k + i] = values[i];
      }
    });
    return;
  }
}

// Element of a row that this thread has.
__device__ std::int32_t my_element() {
  return static_cast<std::int32_t>(blockIdx.y * kThreads + threadIdx.x);
}

// A block has a stretch of a row. residual += x first, where there is one.
template <bool kAdd, int kNormThreads>
__global__ void __launch_bounds__(kNormThreads)
    rms_norm(Rows<float> out, Rows<float> residual, Rows<float> x, const float* weight, std::int32_t width, float eps) {
  __shared__ float shared[kNormThreads / 32];
  const std::int64_t begin = static_cast<std::int64_t>(blockIdx.y) * width;
  const float* added = x[blockIdx.x] + begin;
  float* source = (kAdd ? residual : x)[blockIdx.x] + begin;
  float squares = 0;
  for (std::int32_t c = static_cast<std::int32_t>(threadIdx.x); c < width; c += kNormThreads) {
    float value = source[c];
    if (kAdd) source[c] = value = value + added[c];
    squares += value * value;
  }
  squares = block_sum<kNormThreads>(squares, shared);
  const float scale = 1.0f / sqrtf(squares / static_cast<float>(width) + eps);
  float* to = out[blockIdx.x] + begin;
  for (std::int32_t c = static_cast<std::int32_t>(threadIdx.x); c < width; c += kNormThreads)
    to[c] = source[c] * scale * weight[c];
}

// A warp has a group of a row's columns.
__global__ void quantise_rows(Rows<std::uint8_t> codes, Rows<float> scales, Rows<float> x, std::int32_t columns) {
  constexpr std::int32_t kGroup = static_cast<std::int32_t>(kF8Group);
  const auto lane = static_cast<std::int32_t>(threadIdx.x % 32);
  const float* from = x[blockIdx.x];
  const auto group = static_cast<std::int32_t>(blockIdx.y * (kThreads / 32) + threadIdx.x / 32);
  if (group * kGroup >= columns) return;
  const std::int32_t end = min((group + 1) * kGroup, columns);
  float largest = 1e-10f;
  for (std::int32_t c = group * kGroup + lane; c < end; c += 32) largest = fmaxf(largest, fabsf(from[c]));
  largest = warp_max(largest);
  const float scale = largest / kF8E4M3Max;
  if (lane == 0) scales[blockIdx.x][group] = scale;
  for (std::int32_t c = group * kGroup + lane; c < end; c += 32)
    codes[blockIdx.x][c] = __nv_cvt_float_to_fp8(from[c] / scale, __NV_SATFINITE, __NV_E4M3);
}

__global__ void widen_rows(Rows<float> out, Rows<std::uint8_t> codes, Rows<float> scales, std::int32_t columns) {
  const std::int32_t c = my_element();
  if (c >= columns) return;
  __nv_fp8_e4m3 code;
  code.__x = codes[blockIdx.x][c];
  out[blockIdx.x][c] = static_cast<float>(code) * scales[blockIdx.x][c / static_cast<std::int32_t>(kF8Group)];
}

struct Rotation {
  Rows<float> x;
  const std::int32_t* positions;
  const float* inv_freq;
  std::int32_t pairs, heads, head_dim, first;
  bool interleaved;
  float scale;
};

__global__ void rope(Rotation r) {
  const std::int32_t i = my_element();
  if (i >= r.pairs * r.heads) return;
  const auto position = static_cast<float>(r.positions[blockIdx.x]);
  const std::int32_t m = i % r.pairs;
  float* head = r.x[blockIdx.x] + i / r.pairs * r.head_dim + r.first;
  float& first = head[r.interleaved ? 2 * m : m];
  float& second = head[r.interleaved ? 2 * m + 1 : m + r.pairs];
  float sine, cosine;
  sincosf(position * r.inv_freq[m], &sine, &cosine);
  sine *= r.scale;
  cosine *= r.scale;
  const float a = first, b = second;
  first = a * cosine - b * sine;
  second = b * cosine + a * sine;
}

__global__ void swiglu(Rows<float> out, Rows<float> gate_up, std::int32_t width, float limit) {
  const std::int32_t c = my_element();
  if (c >= width) return;
  const float* gate = gate_up[blockIdx.x];
  float activated = gate[c] / (1.0f + expf(-gate[c])), up = gate[width + c];
  if (limit > 0) {
    if (activated > limit) activated = limit;  // NaN stays NaN
    if (up > limit) up = limit;
    if (up < -limit) up = -limit;
  }
  out[blockIdx.x][c] = activated * up;
}

__global__ void gate_heads(Rows<float> x, Rows<float> gates, std::int32_t columns, std::int32_t head_dim) {
  const std::int32_t c = my_element();
  if (c < columns) x[blockIdx.x][c] *= 1.0f / (1.0f + expf(-gates[blockIdx.x][c / head_dim]));
}

unsigned blocks(std::int64_t rows) {
  return static_cast<unsigned>(rows);
}

// For a thread for each of so many elements of every row.
dim3 elements(std::int64_t rows, std::int64_t count) {
  return dim3(blocks(rows), static_cast<unsigned>(divide_up<std::int64_t>(count, kThreads)));
}

// The width alone decides how many threads share a norm, and so the order of its sum.
template <bool kAdd>
void launch_norm(cudaStream_t stream, const Tensor& out, const Rows<float>& residual, const Tensor& x,
                 const Tensor& weight, float eps) {
  const auto width = static_cast<std::int32_t>(weight.shape[0]);
  const dim3 grid(blocks(x.rows()), static_cast<unsigned>(x.shape[1] / width));
  if (width < 1024)
    rms_norm<kAdd, 256><<<grid, 256, 0, stream>>>(rows_of(out), residual, rows_of(x), weight.f32(), width, eps);
  else
    rms_norm<kAdd, 1024><<<grid, 1024, 0, stream>>>(rows_of(out), residual, rows_of(x), weight.f32(), width, eps);
}

}  // namespace

void run(Machine& machine, const EmbedRows& op) {
  if (op.out.rows() == 0) return;
  embed_rows<<<blocks(op.out.rows()), kThreads, 0, machine.stream>>>(rows_of(op.out), of(op.table).image(),
                                                                     op.ids.as<const std::int32_t>());
  need(cudaGetLastError(), "starting embed_rows");
}

void run(Machine& machine, const RmsNorm& op) {
  if (op.x.rows() == 0) return;
  launch_norm<false>(machine.stream, op.out, {}, op.x, op.weight, op.eps);
  need(cudaGetLastError(), "starting rms_norm");
}

void run(Machine& machine, const AddRmsNorm& op) {
  if (op.x.rows() == 0) return;
  launch_norm<true>(machine.stream, op.out, rows_of(op.residual), op.x, op.weight, op.eps);
  need(cudaGetLastError(), "starting add_rms_norm");
}

void run(Machine& machine, const Rope& op) {
  if (op.x.rows() == 0) return;
  const std::int64_t pairs = op.inv_freq.shape[0], heads = op.x.shape[1] / op.head_dim;
  if (pairs * heads == 0) return;
  rope<<<elements(op.x.rows(), pairs * heads), kThreads, 0, machine.stream>>>(
      {rows_of(op.x), op.positions.as<const std::int32_t>(), op.inv_freq.f32(), static_cast<std::int32_t>(pairs),
       static_cast<std::int32_t>(heads), op.head_dim, op.first, op.interleaved, op.scale});
  need(cudaGetLastError(), "starting rope");
}

void run(Machine& machine, const SwiGlu& op) {
  if (op.out.rows() == 0 || op.out.shape[1] == 0) return;  // a share of a width may be empty
  swiglu<<<elements(op.out.rows(), op.out.shape[1]), kThreads, 0, machine.stream>>>(
      rows_of(op.out), rows_of(op.gate_up), static_cast<std::int32_t>(op.out.shape[1]), op.limit);
  need(cudaGetLastError(), "starting swiglu");
}

void run(Machine& machine, const GateHeads& op) {
  if (op.x.rows() == 0) return;
  const auto columns = static_cast<std::int32_t>(op.x.shape[1]);
  gate_heads<<<elements(op.x.rows(), columns), kThreads, 0, machine.stream>>>(
      rows_of(op.x), rows_of(op.gates), columns, columns / static_cast<std::int32_t>(op.gates.shape[1]));
  need(cudaGetLastError(), "starting gate_heads");
}

void run(Machine& machine, const QuantiseRows& op) {
  if (op.x.shape.elements() == 0) return;
  quantise_rows<<<elements(op.x.rows(), f8_groups(op.x.shape[1]) * 32), kThreads, 0, machine.stream>>>(
      {op.codes.as<std::uint8_t>(), op.codes.row_stride}, rows_of(op.scales), rows_of(op.x),
      static_cast<std::int32_t>(op.x.shape[1]));
  need(cudaGetLastError(), "starting quantise_rows");
}

void run(Machine& machine, const WidenRows& op) {
  if (op.out.shape.elements() == 0) return;
  widen_rows<<<elements(op.out.rows(), op.out.shape[1]), kThreads, 0, machine.stream>>>(
      rows_of(op.out), {op.codes.as<std::uint8_t>(), op.codes.row_stride}, rows_of(op.scales),
      static_cast<std::int32_t>(op.out.shape[1]));
  need(cudaGetLastError(), "starting widen_rows");
}

}  // namespace tandem::cuda
