// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Stamps of a side's steps, in its GPU's memory: when each micro-batch passed some points of each layer, for as many of
// the last steps as are kept.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/cuda/device_memory.h"
#include "ops/cuda/stream.h"

namespace tandem {

struct StampShape {
  std::int32_t steps = 0, layers = 0, micro_batches = 0, points = 0;

  std::size_t place(std::int32_t step, std::int32_t layer, std::int32_t m, std::int32_t point) const {
    const std::int64_t layer_of_all = std::int64_t{step} * layers + layer;
    return static_cast<std::size_t>((layer_of_all * micro_batches + m) * points + point);
  }
};

class SideStamps {
 public:
  SideStamps() = default;  // no stamps: nothing is recorded
  // On the thread's device.
  explicit SideStamps(const StampShape& shape);

  // step: on the device, the steps that have ended, and ahead of them where the point comes before they are counted.
  struct Place {
    std::int32_t layer = 0, micro_batch = 0, point = 0;
    const std::uint32_t* step = nullptr;
    std::uint32_t ahead = 0;
  };
  void stamp(const Place& at, cuda::Stream stream) const;

  bool kept() const { return shape_.steps > 0; }
  // Nanoseconds of the GPU's clock, of step s in the places of s % steps.
  std::vector<std::uint64_t> download() const { return stamps_.download<std::uint64_t>(); }

 private:
  StampShape shape_;
  cuda::DeviceMemory stamps_;
};

}  // namespace tandem
