// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/launch_urgent.cuh"
#include "ops/cuda/peer/held_stream.h"
#include "ops/cuda/ptx/dependent_launch.cuh"
#include "ops/cuda/ptx/global_time.cuh"

namespace tandem::cuda {

namespace {

__global__ void hold_stream(const __grid_constant__ HoldStream op) {
  ptx::wait_for_previous_kernel();
  std::uint64_t begin = ptx::global_time();
  if (op.free_at != nullptr) {
    auto* free_at = reinterpret_cast<unsigned long long*>(op.free_at);
    unsigned long long found = *reinterpret_cast<volatile unsigned long long*>(free_at), before = 0;
    do {
      before = found;
      begin = max(begin, static_cast<std::uint64_t>(before));
      found = atomicCAS(free_at, before, begin + op.occupied_ns);
    } while (found != before);
  }
  const std::uint64_t end = begin + op.occupied_ns + op.latency_ns;
  while (ptx::global_time() < end) __nanosleep(100);
}

}  // namespace

void run(const HoldStream& op, Stream stream) {
  launch_urgent(hold_stream, dim3(1), 1, 0, stream, op);
}

}  // namespace tandem::cuda
