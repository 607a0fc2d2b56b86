// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/launch.cuh"
#include "ops/cuda/peer/flag_rounds.h"
#include "ops/cuda/ptx/global_time.cuh"
#include "ops/cuda/ptx/system_word.cuh"

namespace tandem::cuda {

namespace {

constexpr std::uint64_t kPatienceNs = 2'000'000'000;

// False: nobody raised it.
__device__ inline bool wait_for(const std::uint32_t* flag, std::uint32_t value) {
  const std::uint64_t until = ptx::global_time() + kPatienceNs;
  std::uint32_t found = 0;
  do {
    found = ptx::load_acquire(flag);
  } while (found != value && ptx::global_time() < until);
  return found == value;
}

__global__ void send(FlagPlayer p) {
  for (std::uint32_t round = 0; round < p.rounds; ++round) {
    const std::uint64_t sent = ptx::global_time();
    ptx::store_release(p.other, round + 1);
    if (!wait_for(p.own, round + 1)) return;
    p.times[2 * round] = sent;
    p.times[2 * round + 1] = ptx::global_time();
  }
}

__global__ void answer(FlagPlayer p) {
  for (std::uint32_t round = 0; round < p.rounds; ++round) {
    if (!wait_for(p.own, round + 1)) return;
    p.times[round] = ptx::global_time();
    ptx::store_release(p.other, round + 1);
  }
}

}  // namespace

void send_flags(const FlagPlayer& p, Stream stream) {
  send<<<1, 1, 0, stream>>>(p);
  TANDEM_CUDA_CHECK(cudaGetLastError());
}

void return_flags(const FlagPlayer& p, Stream stream) {
  answer<<<1, 1, 0, stream>>>(p);
  TANDEM_CUDA_CHECK(cudaGetLastError());
}

}  // namespace tandem::cuda
