// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A side's memory on its GPU: whether there is room for it, and weights, as many bytes as the real ones with values
// that keep activations at the size they came in.
#pragma once

#include <cstdint>
#include <string>

#include "ops/cuda/device_memory.h"

namespace tandem {

// Throws Error{kOutOfResources} with the bytes needed for what and those that the thread's device has free. An
// estimate: an allocation after it throws the same where there is no room after all.
void need_room(const char* side, const std::string& what, std::int64_t bytes);

// E4M3 tiles of count weights [n, k], as the products read them.
cuda::DeviceMemory random_tiles(std::int64_t count, std::int64_t n, std::int64_t k, std::uint32_t seed);
// Their scales: size / sqrt(k) · x, over what the codes spread.
cuda::DeviceMemory tile_scales(std::int64_t count, std::int64_t n, std::int64_t k, float size);
cuda::DeviceMemory random_bf16(std::int64_t values, float deviation, std::uint32_t seed);
cuda::DeviceMemory random_f32(std::int64_t values, std::uint32_t seed);
cuda::DeviceMemory repeated_f32(std::int64_t values, float value);
cuda::DeviceMemory zeros(std::size_t bytes);

}  // namespace tandem
