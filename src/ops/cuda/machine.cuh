// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What every operator of the CUDA backend works with: the stream, scratch memory, and how tensors look to a kernel.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "ops/cuda/gemm/fp8_gemm.h"
#include "ops/operators.h"
#include "tensor/tensor.h"

namespace tandem {
class Draw;
}

namespace tandem::cuda {

// Throws Error naming what was being done; kOutOfResources for memory, else kInternal.
void need(cudaError_t result, const char* doing);

// What this thread allocates, records and launches from now on is for this GPU.
void use_device(int device);

// Memory of the device, not zeroed, for whoever frees it. Throws Error{kOutOfResources} with what is free.
void* take_memory(std::size_t bytes);
// Memory of the device, not zeroed; pinned memory of the host that the device can use, zeroed.
Buffer allocate_device(std::size_t bytes);
Buffer allocate_pinned(std::size_t bytes);

struct Machine {
  cudaStream_t stream = nullptr;
  int multiprocessors = 0;
  Buffer scratch;   // of attention's parts and edited logits; fixed in size, so it decides nothing but speed
  Buffer sampling;  // pinned: what a Sample's rows ask, and what was found

  std::size_t scratch_floats() const { return scratch.bytes() / sizeof(float); }
  // Memory for the operator under way. It grows to the largest need; what was given before stays where it is, since
  // recorded steps use it.
  std::byte* workspace(std::size_t bytes);
  // In device memory, where the FP8 or the bf16 tiles of these weights are. Made when they are first asked for.
  const Fp8Weight* fp8_table_of(std::span<const Weight* const> weights);
  const std::byte* const* bf16_table_of(std::span<const Weight* const> weights);

 private:
  struct Table {
    std::vector<std::byte> contents;
    Buffer memory;
  };
  const void* table(const Weight* first, std::span<const std::byte> contents);
  std::vector<Buffer> workspaces_;
  std::map<const Weight*, Table> tables_;  // by their first
};

// A matrix as kernels see it. Columns are adjacent.
template <class T>
struct Rows {
  T* data;
  std::int64_t stride;
  __device__ T* operator[](std::int64_t row) const { return data + row * stride; }
};
inline Rows<float> rows_of(const Tensor& t) {
  return {t.as<float>(), t.row_stride};
}

template <class T>
constexpr T divide_up(T a, T b) {
  return (a + b - 1) / b;
}

void run(Machine& machine, const EmbedRows& op);
void run(Machine& machine, const RmsNorm& op);
void run(Machine& machine, const AddRmsNorm& op);
void run(Machine& machine, const MatMul& op);
void run(Machine& machine, const GroupedMatMul& op);
void run(Machine& machine, const Rope& op);
void run(Machine& machine, const ProjectHeads& op);
void run(Machine& machine, const GateHeads& op);
void run(Machine& machine, const AppendKv& op);
void run(Machine& machine, const PagedAttention& op);
void run(Machine& machine, const SwiGlu& op);
void run(Machine& machine, const SelectExperts& op);
void run(Machine& machine, const GroupByExpert& op);
void run(Machine& machine, const ClampIds& op);
void run(Machine& machine, const GatherRows& op);
void run(Machine& machine, const ScatterScaledRows& op);
void run(Machine& machine, const CombineExperts& op);
void run(Machine& machine, const Sample& op);
std::unique_ptr<Draw> begin(Machine& machine, const Sample& op, const Tensor& ids);  // as Backend::begin
void run(Machine& machine, const QuantiseRows& op);
void run(Machine& machine, const WidenRows& op);
void run(Machine& machine, const Fp8MatMul& op);
void run(Machine& machine, const Fp8Experts& op);
void run(Machine& machine, const AddRows& op);
void run(Machine& machine, const AddLayerNorm& op);
void run(Machine& machine, const QuickGelu& op);
void run(Machine& machine, const Im2Col& op);
void run(Machine& machine, const FullAttention& op);

}  // namespace tandem::cuda
