// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Device memory, streams and timers for tests and benchmarks of single kernels; no CUDA in sight. The backend has an
// allocator of its own.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <vector>

#include "ops/cuda/stream.h"

namespace tandem::cuda {

class DeviceMemory {
 public:
  DeviceMemory() = default;
  explicit DeviceMemory(std::size_t bytes);  // throws Error{kOutOfResources} with what is free
  DeviceMemory(DeviceMemory&& other) noexcept;
  DeviceMemory& operator=(DeviceMemory&& other) noexcept;
  ~DeviceMemory();

  template <class T>
  static DeviceMemory of(std::span<const T> values) {
    DeviceMemory memory(values.size_bytes());
    memory.upload(std::as_bytes(values));
    return memory;
  }
  template <class T>
  static DeviceMemory of(const std::vector<T>& values) {
    return of(std::span<const T>(values));
  }
  std::size_t bytes() const { return bytes_; }
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  void upload(std::span<const std::byte> from);
  void fill(int byte);
  template <class T>
  std::vector<T> download() const {
    std::vector<T> values(bytes_ / sizeof(T));
    download(std::as_writable_bytes(std::span(values)), 0);
    return values;
  }
  template <class T>
  std::vector<T> download(std::size_t first_byte, std::size_t count) const {
    std::vector<T> values(count);
    download(std::as_writable_bytes(std::span(values)), first_byte);
    return values;
  }

 private:
  void download(std::span<std::byte> to, std::size_t first_byte) const;
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

// Ends the program when a kernel failed.
void synchronise(Stream stream = nullptr);

// Median microseconds of one call of work(i): i counts on through all calls, so that the caller can rotate its inputs.
// Each sample is a CUDA graph of calls_per_sample calls, so that the CPU's launches are not what is measured.
double median_microseconds(const std::function<void(Stream, int)>& work, int samples, int calls_per_sample);

}  // namespace tandem::cuda
