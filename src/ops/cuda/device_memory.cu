// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/device_memory.h"

#include <algorithm>
#include <utility>

#include "ops/cuda/launch.cuh"
#include "ops/cuda/machine.cuh"

namespace tandem::cuda {

DeviceMemory::DeviceMemory(std::size_t bytes) : data_(take_memory(std::max<std::size_t>(bytes, 1))), bytes_(bytes) {}

DeviceMemory::DeviceMemory(DeviceMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

DeviceMemory& DeviceMemory::operator=(DeviceMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

DeviceMemory::~DeviceMemory() {
  if (data_ != nullptr) (void)cudaFree(data_);
}

void DeviceMemory::upload(std::span<const std::byte> from) {
  TANDEM_CHECK(from.size() <= bytes_, "more bytes than the memory has");
  TANDEM_CUDA_CHECK(cudaMemcpy(data_, from.data(), from.size(), cudaMemcpyHostToDevice));
}

void DeviceMemory::fill(int byte) {
  TANDEM_CUDA_CHECK(cudaMemset(data_, byte, bytes_));
}

void DeviceMemory::download(std::span<std::byte> to, std::size_t first_byte) const {
  TANDEM_CHECK(first_byte + to.size() <= bytes_, "a download past the end of device memory");
  TANDEM_CUDA_CHECK(
      cudaMemcpy(to.data(), static_cast<const std::byte*>(data_) + first_byte, to.size(), cudaMemcpyDeviceToHost));
}

void synchronise(Stream stream) {
  TANDEM_CUDA_CHECK(cudaStreamSynchronize(stream));
}

double median_microseconds(const std::function<void(Stream, int)>& work, int samples, int calls_per_sample) {
  cudaStream_t stream;
  cudaEvent_t begin, end;
  TANDEM_CUDA_CHECK(cudaStreamCreate(&stream));
  TANDEM_CUDA_CHECK(cudaEventCreate(&begin));
  TANDEM_CUDA_CHECK(cudaEventCreate(&end));
  work(stream, 0);  // loads the code
  TANDEM_CUDA_CHECK(cudaStreamSynchronize(stream));
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  TANDEM_CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < calls_per_sample; ++i) work(stream, i);
  TANDEM_CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
  TANDEM_CUDA_CHECK(cudaGraphInstantiate(&executable, graph, 0));
  std::vector<double> times;
  for (int sample = -2; sample < samples; ++sample) {  // two to warm up
    TANDEM_CUDA_CHECK(cudaEventRecord(begin, stream));
    TANDEM_CUDA_CHECK(cudaGraphLaunch(executable, stream));
    TANDEM_CUDA_CHECK(cudaEventRecord(end, stream));
    TANDEM_CUDA_CHECK(cudaEventSynchronize(end));
    float milliseconds = 0;
    TANDEM_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, begin, end));
    if (sample >= 0) times.push_back(1e3 * milliseconds / calls_per_sample);
  }
  TANDEM_CUDA_CHECK(cudaGraphExecDestroy(executable));
  TANDEM_CUDA_CHECK(cudaGraphDestroy(graph));
  TANDEM_CUDA_CHECK(cudaEventDestroy(begin));
  TANDEM_CUDA_CHECK(cudaEventDestroy(end));
  TANDEM_CUDA_CHECK(cudaStreamDestroy(stream));
  std::nth_element(times.begin(), times.begin() + static_cast<long>(times.size() / 2), times.end());
  return times[times.size() / 2];
}

}  // namespace tandem::cuda
