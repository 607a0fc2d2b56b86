// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// CUDA graphs of steps that come again: a step of a thousand small kernels is one launch, and the GPU starts each
// kernel when the one before it ends instead of when the host gets to it.
//
// A step is run as it is the first time, since it may never come back; the second time it is recorded and the recording
// launched; from then on it is launched without asking anybody. Recordings that have not been used for longest go
// when there are too many. One thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <vector>

#include "ops/cuda/stream.h"

struct CUgraphExec_st;

namespace tandem::cuda {

class StepGraphs {
 public:
  static constexpr std::size_t kGraphsMax = 128;

  StepGraphs() = default;
  ~StepGraphs();
  StepGraphs(const StepGraphs&) = delete;
  StepGraphs& operator=(const StepGraphs&) = delete;

  // What Backend::replay promises. record launches on stream and allocates, copies to the host and waits for nothing.
  void replay(Stream stream, std::span<const std::int64_t> key, const std::function<void()>& record);
  // And what Backend::prepare and Backend::launch promise. Such a step is recorded at once, and ready to go.
  bool prepare(Stream stream, std::span<const std::int64_t> key, const std::function<void()>& record);
  void launch(Stream stream, std::span<const std::int64_t> key);

 private:
  struct Step {
    CUgraphExec_st* graph = nullptr;  // none: it was run once
    std::uint64_t used = 0;
  };
  void make_room();

  std::map<std::vector<std::int64_t>, Step> steps_;
  std::uint64_t uses_ = 0;
};

}  // namespace tandem::cuda
