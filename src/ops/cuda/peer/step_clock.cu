// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "base/check.h"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/peer/step_clock.h"

namespace tandem::cuda {

namespace {

__global__ void write_global_timer(std::uint64_t* place) {
  std::uint64_t now;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
  *place = now;
}

}  // namespace

void write_time(std::uint64_t* place, Stream stream) {
  write_global_timer<<<1, 1, 0, stream>>>(place);
  TANDEM_CUDA_CHECK(cudaGetLastError());
}

StepClock::~StepClock() {
  for (cudaEvent_t event : events_) (void)cudaEventDestroy(event);
}

void StepClock::mark(Stream stream) {
  cudaEvent_t event = nullptr;
  TANDEM_CUDA_CHECK(cudaEventCreate(&event));
  events_.push_back(event);
  TANDEM_CUDA_CHECK(cudaEventRecord(event, stream));
}

std::vector<double> StepClock::microseconds() const {
  std::vector<double> times;
  for (std::size_t i = 1; i < events_.size(); ++i) {
    float milliseconds = 0;
    TANDEM_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, events_[i - 1], events_[i]));
    times.push_back(1e3 * milliseconds);
  }
  return times;
}

void StepClock::wait_for(std::size_t mark) const {
  TANDEM_CHECK(mark < events_.size(), "a mark that was not set");
  TANDEM_CUDA_CHECK(cudaEventSynchronize(events_[mark]));
}

bool StepClock::has_passed(std::size_t mark) const {
  TANDEM_CHECK(mark < events_.size(), "a mark that was not set");
  const cudaError_t state = cudaEventQuery(events_[mark]);
  if (state == cudaErrorNotReady) {
    (void)cudaGetLastError();
    return false;
  }
  TANDEM_CUDA_CHECK(state);
  return true;
}

}  // namespace tandem::cuda
