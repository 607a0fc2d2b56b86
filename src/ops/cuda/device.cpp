// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/device.h"

#include "base/format.h"

namespace tandem::cuda {

namespace {

std::string version(int number) {
  return format("{}.{}", number / 1000, number % 1000 / 10);
}

}  // namespace

std::string why_unusable(const DeviceFacts& facts) {
  if (!facts.built) return "this program was built without CUDA (cmake preset cuda, or ./dev build cuda)";
  if (facts.driver_version == 0) return "there is no NVIDIA driver on this machine";
  if (facts.driver_version < kDriverVersionMin)
    return format("the NVIDIA driver serves CUDA {}, this program needs {} or newer", version(facts.driver_version),
                  version(kDriverVersionMin));
  if (!facts.error.empty()) return format("CUDA says: {}", facts.error);
  if (facts.devices == 0) return "the NVIDIA driver sees no GPU";
  if (facts.device >= facts.devices)
    return format("there is no GPU {}, this machine has {}, numbered from 0 (--gpu-a, --gpu-f, devices)", facts.device,
                  facts.devices);
  if (facts.major != 9 || facts.minor != 0)
    return format("{} has compute capability {}.{}, the kernels are for 9.0 (H100, H200)", facts.name, facts.major,
                  facts.minor);
  return {};
}

}  // namespace tandem::cuda
