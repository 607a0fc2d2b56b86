// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Several GPUs of one process: which of them a thread works on, and their reach into each other's memory.
#pragma once

#include <cstdint>

#include "ops/cuda/stream.h"

namespace tandem::cuda {

// What this thread allocates, records and launches belongs to the device while this lives.
class OnDevice {
 public:
  explicit OnDevice(int device);
  ~OnDevice();
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  int before_ = 0;
};

int device_count();

// Each may read and write the other's memory from now on. The same device twice is nothing to do. Throws
// Error{kUnavailable} where one is not there, and naming both where the machine has no way between them or does not
// open it.
void connect_devices(int a, int b);

void synchronise_device();  // until everything on the thread's device has ended

// A stream of its own on the thread's device. Kernels of an urgent one get the multiprocessors that others leave first.
class WorkStream {
 public:
  enum class Priority : std::uint8_t { kUsual, kUrgent };
  explicit WorkStream(Priority priority = Priority::kUsual);
  WorkStream(WorkStream&& other) noexcept;
  ~WorkStream();
  Stream get() const { return stream_; }

 private:
  Stream stream_ = nullptr;
};

}  // namespace tandem::cuda
