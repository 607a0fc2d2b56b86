// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "base/check.h"
#include "ops/cuda/launch_urgent.cuh"
#include "ops/cuda/peer/step_clock.h"
#include "ops/cuda/ptx/dependent_launch.cuh"
#include "ops/cuda/ptx/global_time.cuh"

namespace tandem::cuda {

namespace {

__global__ void stamp_time(const __grid_constant__ StampTime op) {
  ptx::wait_for_previous_kernel();
  ptx::let_next_kernel_start();
  const std::uint64_t now = ptx::global_time();
  op.stamps[static_cast<std::size_t>((*op.step + op.ahead) % op.steps_kept) * op.stride] = now;
}

}  // namespace

void run(const StampTime& op, Stream stream) {
  launch_urgent(stamp_time, dim3(1), 1, 0, stream, op);
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
  for (std::size_t i = 1; i < events_.size(); ++i) times.push_back(microseconds_before(i));
  return times;
}

double StepClock::microseconds_before(std::size_t mark) const {
  TANDEM_CHECK(mark > 0 && mark < events_.size(), "no mark before this one");
  float milliseconds = 0;
  TANDEM_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, events_[mark - 1], events_[mark]));
  return 1e3 * milliseconds;
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
