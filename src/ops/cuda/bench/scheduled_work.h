// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A decode schedule with its arrays and scratch on the GPU.
#pragma once

#include <cstdint>
#include <span>

#include "ops/cuda/attention/decode_merge.h"
#include "ops/cuda/attention/decode_schedule.h"
#include "ops/cuda/device_memory.h"

namespace tandem::cuda {

class ScheduledWork {
 public:
  ScheduledWork() = default;
  ScheduledWork(std::span<const std::int32_t> lengths, const DecodeScheduleOptions& options,
                const DecodeMergeShape& shape);

  const DecodeSchedule& schedule() const { return schedule_; }
  DecodeWork work() const;

 private:
  DecodeSchedule schedule_;
  DeviceMemory pieces_, merges_, partials_, partial_stats_;
};

}  // namespace tandem::cuda
