// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Operators that treat each row by itself, products aside. A block has a row; all are bound by memory.
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

// A block has a stretch of a row. residual += x first, where there is one.
template <bool kAdd>
__global__ void rms_norm(Rows<float> out, Rows<float> residual, Rows<float> x, const float* weight, std::int32_t width,
                         float eps) {
  __shared__ float shared[kThreads / 32];
  const std::int64_t begin = static_cast<std::int64_t>(blockIdx.y) * width;
  const float* added = x[blockIdx.x] + begin;
  float* source = (kAdd ? residual : x)[blockIdx.x] + begin;
  float squares = 0;
  for (std::int32_t c = static_cast<std::int32_t>(threadIdx.x); c < width; c += kThreads) {
    float value = source[c];
    if (kAdd) source[c] = value = value + added[c];
    squares += value * value;
  }
  squares = block_sum<kThreads>(squares, shared);
  const float scale = 1.0f / sqrtf(squares / static_cast<float>(width) + eps);
  float* to = out[blockIdx.x] + begin;
  for (std::int32_t c = static_cast<std::int32_t>(threadIdx.x); c < width; c += kThreads)
    to[c] = source[c] * scale * weight[c];
}

// A block has a row, a warp a group of its columns at a time.
__global__ void quantise_rows(Rows<std::uint8_t> codes, Rows<float> scales, Rows<float> x, std::int32_t columns) {
  constexpr std::int32_t kGroup = static_cast<std::int32_t>(kF8Group);
  const auto lane = static_cast<std::int32_t>(threadIdx.x % 32);
  const float* from = x[blockIdx.x];
  for (auto group = static_cast<std::int32_t>(threadIdx.x / 32); group * kGroup < columns; group += kThreads / 32) {
    const std::int32_t end = min((group + 1) * kGroup, columns);
    float largest = 1e-10f;
    for (std::int32_t c = group * kGroup + lane; c < end; c += 32) largest = fmaxf(largest, fabsf(from[c]));
    for (int step = 16; step > 0; step /= 2) largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, step));
    const float scale = largest / kF8E4M3Max;
    if (lane == 0) scales[blockIdx.x][group] = scale;
    for (std::int32_t c = group * kGroup + lane; c < end; c += 32)
      codes[blockIdx.x][c] = __nv_cvt_float_to_fp8(from[c] / scale, __NV_SATFINITE, __NV_E4M3);
  }
}

__global__ void widen_rows(Rows<float> out, Rows<std::uint8_t> codes, Rows<float> scales, std::int32_t columns) {
  for (auto c = static_cast<std::int32_t>(threadIdx.x); c < columns; c += kThreads) {
    __nv_fp8_e4m3 code;
    code.__x = codes[blockIdx.x][c];
    out[blockIdx.x][c] = static_cast<float>(code) * scales[blockIdx.x][c / static_cast<std::int32_t>(kF8Group)];
  }
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
  const auto position = static_cast<float>(r.positions[blockIdx.x]);
  for (std::int32_t i = static_cast<std::int32_t>(threadIdx.x); i < r.pairs * r.heads; i += kThreads) {
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
}

__global__ void swiglu(Rows<float> out, Rows<float> gate_up, std::int32_t width, float limit) {
  const float* gate = gate_up[blockIdx.x];
  for (std::int32_t c = static_cast<std::int32_t>(threadIdx.x); c < width; c += kThreads) {
    float activated = gate[c] / (1.0f + expf(-gate[c])), up = gate[width + c];
    if (limit > 0) {
      if (activated > limit) activated = limit;  // NaN stays NaN
      if (up > limit) up = limit;
      if (up < -limit) up = -limit;
    }
    out[blockIdx.x][c] = activated * up;
  }
}

__global__ void gate_heads(Rows<float> x, Rows<float> gates, std::int32_t columns, std::int32_t head_dim) {
  for (std::int32_t c = static_cast<std::int32_t>(threadIdx.x); c < columns; c += kThreads)
    x[blockIdx.x][c] *= 1.0f / (1.0f + expf(-gates[blockIdx.x][c / head_dim]));
}

unsigned blocks(std::int64_t rows) {
  return static_cast<unsigned>(rows);
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
  const std::int64_t width = op.weight.shape[0];
  const dim3 grid(blocks(op.x.rows()), static_cast<unsigned>(op.x.shape[1] / width));
  rms_norm<false><<<grid, kThreads, 0, machine.stream>>>(rows_of(op.out), {}, rows_of(op.x), op.weight.f32(),
                                                         static_cast<std::int32_t>(width), op.eps);
  need(cudaGetLastError(), "starting rms_norm");
}

void run(Machine& machine, const AddRmsNorm& op) {
  if (op.x.rows() == 0) return;
  rms_norm<true><<<blocks(op.x.rows()), kThreads, 0, machine.stream>>>(
      rows_of(op.out), rows_of(op.residual), rows_of(op.x), op.weight.f32(), static_cast<std::int32_t>(op.x.shape[1]),
      op.eps);
  need(cudaGetLastError(), "starting add_rms_norm");
}

void run(Machine& machine, const Rope& op) {
  if (op.x.rows() == 0) return;
  rope<<<blocks(op.x.rows()), kThreads, 0, machine.stream>>>(
      {rows_of(op.x), op.positions.as<const std::int32_t>(), op.inv_freq.f32(),
       static_cast<std::int32_t>(op.inv_freq.shape[0]), static_cast<std::int32_t>(op.x.shape[1] / op.head_dim),
       op.head_dim, op.first, op.interleaved, op.scale});
  need(cudaGetLastError(), "starting rope");
}

void run(Machine& machine, const SwiGlu& op) {
  if (op.out.rows() == 0) return;
  swiglu<<<blocks(op.out.rows()), kThreads, 0, machine.stream>>>(rows_of(op.out), rows_of(op.gate_up),
                                                                 static_cast<std::int32_t>(op.out.shape[1]), op.limit);
  need(cudaGetLastError(), "starting swiglu");
}

void run(Machine& machine, const GateHeads& op) {
  if (op.x.rows() == 0) return;
  const auto columns = static_cast<std::int32_t>(op.x.shape[1]);
  gate_heads<<<blocks(op.x.rows()), kThreads, 0, machine.stream>>>(
      rows_of(op.x), rows_of(op.gates), columns, columns / static_cast<std::int32_t>(op.gates.shape[1]));
  need(cudaGetLastError(), "starting gate_heads");
}

void run(Machine& machine, const QuantiseRows& op) {
  if (op.x.rows() == 0) return;
  quantise_rows<<<blocks(op.x.rows()), kThreads, 0, machine.stream>>>(
      {op.codes.as<std::uint8_t>(), op.codes.row_stride}, rows_of(op.scales), rows_of(op.x),
      static_cast<std::int32_t>(op.x.shape[1]));
  need(cudaGetLastError(), "starting quantise_rows");
}

void run(Machine& machine, const WidenRows& op) {
  if (op.out.rows() == 0) return;
  widen_rows<<<blocks(op.out.rows()), kThreads, 0, machine.stream>>>(
      rows_of(op.out), {op.codes.as<std::uint8_t>(), op.codes.row_stride}, rows_of(op.scales),
      static_cast<std::int32_t>(op.out.shape[1]));
  need(cudaGetLastError(), "starting widen_rows");
}

}  // namespace tandem::cuda
