// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/peer/recorded_work.h"

#include <utility>

#include "ops/cuda/launch.cuh"

namespace tandem::cuda {

RecordedWork::RecordedWork(Stream stream, const std::function<void()>& record) {
  TANDEM_CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  record();
  cudaGraph_t graph = nullptr;
  TANDEM_CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
  TANDEM_CUDA_CHECK(cudaGraphInstantiate(&graph_, graph, 0));
  TANDEM_CUDA_CHECK(cudaGraphDestroy(graph));
  TANDEM_CUDA_CHECK(cudaGraphUpload(graph_, stream));
}

RecordedWork::RecordedWork(RecordedWork&& other) noexcept : graph_(std::exchange(other.graph_, nullptr)) {}

RecordedWork& RecordedWork::operator=(RecordedWork&& other) noexcept {
  std::swap(graph_, other.graph_);
  return *this;
}

RecordedWork::~RecordedWork() {
  if (graph_ != nullptr) (void)cudaGraphExecDestroy(graph_);
}

void RecordedWork::launch(Stream stream) const {
  TANDEM_CUDA_CHECK(cudaGraphLaunch(graph_, stream));
}

StreamPoint::StreamPoint() {
  TANDEM_CUDA_CHECK(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming));
}

StreamPoint::~StreamPoint() {
  (void)cudaEventDestroy(event_);
}

void StreamPoint::reach(Stream stream) const {
  TANDEM_CUDA_CHECK(cudaEventRecord(event_, stream));
}

void StreamPoint::wait_for(Stream stream) const {
  TANDEM_CUDA_CHECK(cudaStreamWaitEvent(stream, event_, 0));
}

void fork_stream(Stream stream, Stream other) {
  const StreamPoint point;
  point.reach(stream);
  point.wait_for(other);
}

}  // namespace tandem::cuda
