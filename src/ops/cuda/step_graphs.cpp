// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/step_graphs.h"

#include <algorithm>
#include <utility>

#include "ops/cuda/machine.cuh"

namespace tandem::cuda {

namespace {

// Ends a recording also when an operator throws, so that the stream can be used again.
class Recording {
 public:
  explicit Recording(Stream stream) : stream_(stream) {
    // Other workers' threads allocate and load meanwhile; only this one has to keep still.
    need(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "recording a step");
  }
  ~Recording() {
    if (stream_) (void)cudaStreamEndCapture(stream_, &graph_);
    if (graph_) (void)cudaGraphDestroy(graph_);
  }
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;

  cudaGraphExec_t finish() {
    need(cudaStreamEndCapture(std::exchange(stream_, nullptr), &graph_), "recording a step");
    cudaGraphExec_t executable = nullptr;
    need(cudaGraphInstantiate(&executable, graph_, 0), "preparing a recorded step");
    return executable;
  }

 private:
  Stream stream_;
  cudaGraph_t graph_ = nullptr;
};

}  // namespace

StepGraphs::~StepGraphs() {
  for (const auto& [key, step] : steps_)
    if (step.graph) (void)cudaGraphExecDestroy(step.graph);
}

void StepGraphs::replay(Stream stream, std::span<const std::int64_t> key, const std::function<void()>& record) {
  const auto [at, is_new] = steps_.try_emplace(std::vector(key.begin(), key.end()));
  Step& step = at->second;
  step.used = ++uses_;
  if (is_new) {
    make_room();
    return record();
  }
  if (!step.graph) {
    Recording recording(stream);
    record();
    step.graph = recording.finish();
  }
  need(cudaGraphLaunch(step.graph, stream), "starting a recorded step");
}

bool StepGraphs::prepare(Stream stream, std::span<const std::int64_t> key, const std::function<void()>& record) {
  Step& step = steps_[std::vector(key.begin(), key.end())];
  step.used = ++uses_;
  if (step.graph) return false;
  make_room();
  Recording recording(stream);
  record();
  step.graph = recording.finish();
  need(cudaGraphUpload(step.graph, stream), "preparing a recorded step");
  return true;
}

void StepGraphs::launch(Stream stream, std::span<const std::int64_t> key) {
  Step& step = steps_.at(std::vector(key.begin(), key.end()));
  step.used = ++uses_;
  need(cudaGraphLaunch(step.graph, stream), "starting a recorded step");
}

// The newest, which is not to go, has been used last.
void StepGraphs::make_room() {
  if (steps_.size() <= kGraphsMax) return;
  const auto oldest = std::ranges::min_element(steps_, {}, [](const auto& entry) { return entry.second.used; });
  if (oldest->second.graph) need(cudaGraphExecDestroy(oldest->second.graph), "dropping a recorded step");
  steps_.erase(oldest);
}

}  // namespace tandem::cuda
