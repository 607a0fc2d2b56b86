// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include <cuda_bf16.h>

#include "ops/cuda/attention/decode_schedule.h"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/ptx/dependent_launch.cuh"
#include "ops/cuda/split/decode_step.h"

namespace tandem::cuda {

namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) embed_tokens(const __grid_constant__ EmbedTokens op) {
  ptx::wait_for_previous_kernel();
  ptx::let_next_kernel_start();
  const std::int32_t id = op.tokens[blockIdx.x].id;
  const std::int32_t token = id >= 0 && id < op.vocab ? id : 0;
  const std::uint16_t* from = op.table + static_cast<std::size_t>(token) * op.columns;
  float* to = op.residual + static_cast<std::size_t>(blockIdx.x) * op.columns;
  for (int i = static_cast<int>(threadIdx.x) * 4; i < op.columns; i += kThreads * 4) {
    const __nv_bfloat162* pair = reinterpret_cast<const __nv_bfloat162*>(from + i);
    const float2 a = __bfloat1622float2(pair[0]), b = __bfloat1622float2(pair[1]);
    *reinterpret_cast<float4*>(to + i) = make_float4(a.x, a.y, b.x, b.y);
  }
}

__global__ void __launch_bounds__(kThreads) grow_sequences(const __grid_constant__ GrowSequences op) {
  ptx::wait_for_previous_kernel();
  ptx::let_next_kernel_start();
  for (int row = static_cast<int>(threadIdx.x); row < op.rows; row += kThreads) {
    const std::int32_t length = op.lengths[row] < op.length_max ? op.lengths[row] + 1 : op.length_min;
    const std::int32_t position = length - 1;
    op.lengths[row] = length;
    op.positions[row] = position;
    op.slots[row] = op.block_table[row * op.blocks_max + position / kDecodePageTokens] * kDecodePageTokens +
                    position % kDecodePageTokens;
  }
  if (threadIdx.x == 0) *op.step += 1;
}

__global__ void add_one(std::uint32_t* step) {
  *step += 1;
}

__global__ void write_word(std::uint32_t* word, std::uint32_t value) {
  *word = value;
}

}  // namespace

void run(const EmbedTokens& op, Stream stream) {
  if (op.rows == 0) return;
  launch_dependent(embed_tokens, dim3(static_cast<unsigned>(op.rows)), kThreads, 0, stream, op);
}

void run(const GrowSequences& op, Stream stream) {
  launch_dependent(grow_sequences, dim3(1), kThreads, 0, stream, op);
}

void count_step(std::uint32_t* step, Stream stream) {
  add_one<<<1, 1, 0, stream>>>(step);
  TANDEM_CUDA_CHECK(cudaGetLastError());
}

void set_word(std::uint32_t* word, std::uint32_t value, Stream stream) {
  write_word<<<1, 1, 0, stream>>>(word, value);
  TANDEM_CUDA_CHECK(cudaGetLastError());
}

}  // namespace tandem::cuda
