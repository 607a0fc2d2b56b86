// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Which GPU there is and whether this program can use it. Asking never fails: what is missing is part of the answer, so
// that a machine without a GPU gets a sentence and keeps its CPU backend.
#pragma once

#include <cstddef>
#include <string>

namespace tandem::cuda {

struct DeviceFacts {
  bool built = false;      // this program has the CUDA backend
  int driver_version = 0;  // newest CUDA that the driver serves, 1000 · major + 10 · minor; 0: no driver
  int devices = 0;
  std::string error;  // what CUDA said when it could not tell more
  // Of the one that was looked at.
  int device = 0;
  std::string name;
  int major = 0, minor = 0;  // compute capability
  int multiprocessors = 0;
  std::size_t bytes_free = 0, bytes_total = 0;
};

// CUDA 13.0: the runtime that this program carries needs a driver of at least this version.
inline constexpr int kDriverVersionMin = 13000;

DeviceFacts look_at_device();  // at the one that this thread works on
// The thread works on the device from now on. It does not go back: one that has never chosen would go to GPU 0, and
// choosing a GPU takes some of its memory.
DeviceFacts look_at_device(int device);

// Why the backend cannot run there, as a sentence with what is needed and what was found; empty when it can.
std::string why_unusable(const DeviceFacts& facts);

}  // namespace tandem::cuda
