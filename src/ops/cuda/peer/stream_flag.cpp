// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/peer/stream_flag.h"

#include <cuda.h>

#include "base/error.h"
#include "base/format.h"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/peer/thread_flag.h"

namespace tandem::cuda {

namespace {

// The driver's own function, found through the runtime: the program is not linked with the driver, which a machine
// without a GPU does not have.
using BatchMemOp = CUresult (*)(CUstream, unsigned, CUstreamBatchMemOpParams*, unsigned);

BatchMemOp batch_mem_op() {
  static const BatchMemOp function = [] {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result{};
    TANDEM_CUDA_CHECK(
        cudaGetDriverEntryPointByVersion("cuStreamBatchMemOp", &found, 13000, cudaEnableDefault, &result));
    if (result != cudaDriverEntryPointSuccess)
      throw Error(ErrorCode::kUnavailable, "the NVIDIA driver has no cuStreamBatchMemOp");
    return reinterpret_cast<BatchMemOp>(found);
  }();
  return function;
}

CUstreamBatchMemOpParams write(std::uint32_t* word, std::uint32_t value) {
  CUstreamBatchMemOpParams op{};
  op.writeValue.operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
  op.writeValue.address = reinterpret_cast<CUdeviceptr>(word);
  op.writeValue.value = value;
  op.writeValue.flags = CU_STREAM_WRITE_VALUE_DEFAULT;  // with a barrier: what came before is seen first
  return op;
}

void enqueue(CUstreamBatchMemOpParams* ops, unsigned count, Stream stream) {
  const CUresult result = batch_mem_op()(stream, count, ops, 0);
  TANDEM_CHECK(result == CUDA_SUCCESS, format("cuStreamBatchMemOp: error {}", static_cast<int>(result)));
}

}  // namespace

void raise_flag(std::uint32_t* flag, FlagsBy by, Stream stream) {
  if (by == FlagsBy::kThreads) return run(RaiseFlag{flag}, stream);
  CUstreamBatchMemOpParams op = write(flag, 1);
  enqueue(&op, 1, stream);
}

void wait_and_lower_flag(std::uint32_t* flag, FlagsBy by, Stream stream) {
  if (by == FlagsBy::kThreads) return run(AwaitFlag{flag}, stream);
  CUstreamBatchMemOpParams ops[2]{};
  ops[0].waitValue.operation = CU_STREAM_MEM_OP_WAIT_VALUE_32;
  ops[0].waitValue.address = reinterpret_cast<CUdeviceptr>(flag);
  ops[0].waitValue.value = 1;
  ops[0].waitValue.flags = CU_STREAM_WAIT_VALUE_EQ;
  ops[1] = write(flag, 0);
  enqueue(ops, 2, stream);
}

void copy_between_devices(void* to, const void* from, std::size_t bytes, Stream stream) {
  if (bytes == 0) return;
  TANDEM_CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream));
}

}  // namespace tandem::cuda
