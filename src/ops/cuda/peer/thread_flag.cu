// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// 32 registers at most: a warp then has its place beside an FP8 product, which takes the rest of a multiprocessor.
#include "ops/cuda/launch_urgent.cuh"
#include "ops/cuda/peer/thread_flag.h"
#include "ops/cuda/ptx/dependent_launch.cuh"
#include "ops/cuda/ptx/system_word.cuh"

namespace tandem::cuda {

namespace {

__global__ void __maxnreg__(32) raise_by_thread(const __grid_constant__ RaiseFlag op) {
  ptx::wait_for_previous_kernel();
  ptx::store_release(op.flag, 1);
}

__global__ void __maxnreg__(32) await_by_thread(const __grid_constant__ AwaitFlag op) {
  ptx::wait_for_previous_kernel();
  while (ptx::load_acquire(op.flag) != 1) {
  }
  *op.flag = 0;
  ptx::let_next_kernel_start();
}

}  // namespace

void run(const RaiseFlag& op, Stream stream) {
  launch_urgent(raise_by_thread, dim3(1), 1, 0, stream, op);
}

void run(const AwaitFlag& op, Stream stream) {
  launch_urgent(await_by_thread, dim3(1), 1, 0, stream, op);
}

}  // namespace tandem::cuda
