// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/peer/devices.h"

#include <utility>

#include "base/error.h"
#include "base/format.h"
#include "ops/cuda/launch.cuh"

namespace tandem::cuda {

OnDevice::OnDevice(int device) {
  TANDEM_CUDA_CHECK(cudaGetDevice(&before_));
  if (const cudaError_t error = cudaSetDevice(device); error != cudaSuccess) {
    (void)cudaGetLastError();  // told here, not by the next call
    throw Error(ErrorCode::kUnavailable, format("GPU {} of {}: {}", device, device_count(), cudaGetErrorString(error)));
  }
}

OnDevice::~OnDevice() {
  (void)cudaSetDevice(before_);
}

int device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    (void)cudaGetLastError();
    return 0;
  }
  return count;
}

namespace {

void need_reach(cudaError_t answer, int from, int to) {
  if (answer == cudaSuccess) return;
  (void)cudaGetLastError();  // told here, not by the next call
  throw Error(ErrorCode::kUnavailable,
              format("GPU {} cannot reach the memory of GPU {}: {}", from, to, cudaGetErrorString(answer)));
}

void let_reach(int from, int to) {
  int can = 0;
  need_reach(cudaDeviceCanAccessPeer(&can, from, to), from, to);
  if (can == 0)
    throw Error(ErrorCode::kUnavailable, format("GPU {} cannot reach the memory of GPU {} (no NVLink or PCIe peer "
                                                "access between them)",
                                                from, to));
  const OnDevice on(from);
  const cudaError_t enabled = cudaDeviceEnablePeerAccess(to, 0);
  if (enabled == cudaErrorPeerAccessAlreadyEnabled)
    (void)cudaGetLastError();
  else
    need_reach(enabled, from, to);
}

}  // namespace

void connect_devices(int a, int b) {
  for (const int device : {a, b}) const OnDevice exists(device);
  if (a == b) return;
  let_reach(a, b);
  let_reach(b, a);
}

void synchronise_device() {
  TANDEM_CUDA_CHECK(cudaDeviceSynchronize());
}

WorkStream::WorkStream(Priority priority) {
  int least = 0, greatest = 0;
  TANDEM_CUDA_CHECK(cudaDeviceGetStreamPriorityRange(&least, &greatest));
  TANDEM_CUDA_CHECK(
      cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, priority == Priority::kUrgent ? greatest : least));
}

WorkStream::WorkStream(WorkStream&& other) noexcept : stream_(std::exchange(other.stream_, nullptr)) {}

WorkStream::~WorkStream() {
  if (stream_ != nullptr) (void)cudaStreamDestroy(stream_);
}

}  // namespace tandem::cuda
