// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "slice/side_memory.h"

#include <cmath>
#include <vector>

#include "base/error.h"
#include "base/format.h"
#include "ops/cuda/bench/random_fill.h"
#include "ops/cuda/device.h"

namespace tandem {

void need_room(const char* side, const std::string& what, std::int64_t bytes) {
  const auto free = static_cast<std::int64_t>(cuda::look_at_device().bytes_free);
  if (bytes > free)
    throw Error(ErrorCode::kOutOfResources,
                format("the {} GPU needs {:.1f} GB for {} and has {:.1f} GB free", side,
                       static_cast<double>(bytes) * 1e-9, what, static_cast<double>(free) * 1e-9));
}

cuda::DeviceMemory random_tiles(std::int64_t count, std::int64_t n, std::int64_t k, std::uint32_t seed) {
  cuda::DeviceMemory memory(static_cast<std::size_t>(count * n * k));
  cuda::run(cuda::FillE4m3{.out = memory.as<std::uint8_t>(), .bytes = count * n * k, .seed = seed}, nullptr);
  return memory;
}

cuda::DeviceMemory tile_scales(std::int64_t count, std::int64_t n, std::int64_t k, float size) {
  constexpr float kSpreadOfCodes = 64;
  return repeated_f32(count * (n / 128) * (k / 128), size / (kSpreadOfCodes * std::sqrt(static_cast<float>(k))));
}

cuda::DeviceMemory random_bf16(std::int64_t values, float deviation, std::uint32_t seed) {
  cuda::DeviceMemory memory(static_cast<std::size_t>(values) * 2);
  cuda::run(
      cuda::FillNormalBf16{.out = memory.as<std::uint16_t>(), .values = values, .deviation = deviation, .seed = seed},
      nullptr);
  return memory;
}

cuda::DeviceMemory random_f32(std::int64_t values, std::uint32_t seed) {
  cuda::DeviceMemory memory(static_cast<std::size_t>(values) * sizeof(float));
  cuda::run(cuda::FillNormal{.out = memory.as<float>(), .rows = 1, .columns = values, .seed = seed}, nullptr);
  return memory;
}

cuda::DeviceMemory repeated_f32(std::int64_t values, float value) {
  return cuda::DeviceMemory::of(std::vector<float>(static_cast<std::size_t>(values), value));
}

cuda::DeviceMemory zeros(std::size_t bytes) {
  cuda::DeviceMemory memory(bytes);
  memory.fill(0);
  return memory;
}

}  // namespace tandem
