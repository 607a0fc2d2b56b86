// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Launching kernels, and what to do when CUDA says no: a failed launch is a bug of ours and stops the program.
#pragma once

#include <cuda_runtime.h>

#include <iterator>

#include "base/check.h"

#define TANDEM_CUDA_CHECK(call)                                                     \
  do {                                                                              \
    const cudaError_t error = (call);                                               \
    if (error != cudaSuccess) [[unlikely]]                                          \
      ::tandem::check_failed(__FILE__, __LINE__, #call, cudaGetErrorString(error)); \
  } while (false)

namespace tandem::cuda {

inline constexpr int kWeightsOfLaunchMax = 512;  // that one can name: experts of a layer on one GPU, or heads

// A kernel that may start while the one before it in the stream still runs: it calls ptx::wait_for_previous_kernel()
// before it touches memory.
class DependentLaunch {
 public:
  DependentLaunch(dim3 grid, int threads, std::size_t shared_bytes, cudaStream_t stream) {
    config_.gridDim = grid;
    config_.blockDim = dim3(static_cast<unsigned>(threads));
    config_.dynamicSmemBytes = shared_bytes;
    config_.stream = stream;
    config_.attrs = attributes_;
    next(cudaLaunchAttributeProgrammaticStreamSerialization).programmaticStreamSerializationAllowed = 1;
  }
  DependentLaunch(const DependentLaunch&) = delete;  // config_ points to attributes_
  DependentLaunch& operator=(const DependentLaunch&) = delete;

  // Blocks come in clusters of so many along x.
  void set_cluster(int blocks) {
    if (blocks == 1) return;
    auto& cluster = next(cudaLaunchAttributeClusterDimension).clusterDim;
    cluster.x = static_cast<unsigned>(blocks);
    cluster.y = cluster.z = 1;
  }
  // Where multiprocessors become free, blocks of this kernel come before those of others.
  void set_urgent() {
    int least = 0, greatest = 0;
    TANDEM_CUDA_CHECK(cudaDeviceGetStreamPriorityRange(&least, &greatest));
    next(cudaLaunchAttributePriority).priority = greatest;
  }
  template <class Op>
  void run(void (*kernel)(Op), const Op& op) {
    TANDEM_CUDA_CHECK(cudaLaunchKernelEx(&config_, kernel, op));
  }

 private:
  cudaLaunchAttributeValue& next(cudaLaunchAttributeID id) {
    TANDEM_CHECK(config_.numAttrs < std::size(attributes_), "an attribute of a launch that is set twice");
    cudaLaunchAttribute& attribute = attributes_[config_.numAttrs++];
    attribute.id = id;
    return attribute.val;
  }

  cudaLaunchAttribute attributes_[3]{};  // serialization, cluster, priority
  cudaLaunchConfig_t config_{};
};

template <class Op>
void launch_dependent(void (*kernel)(Op), dim3 grid, int threads, std::size_t shared_bytes, cudaStream_t stream,
                      const Op& op, int cluster = 1) {
  if (shared_bytes > 32 * 1024)  // of 48 KiB that need not be asked for, some may be static
    TANDEM_CUDA_CHECK(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes)));
  DependentLaunch launch(grid, threads, shared_bytes, stream);
  launch.set_cluster(cluster);
  launch.run(kernel, op);
}

}  // namespace tandem::cuda
