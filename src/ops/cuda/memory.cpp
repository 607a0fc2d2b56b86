// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/format.h"
#include "ops/cuda/cuda_weight.cuh"

namespace tandem::cuda {

void need(cudaError_t result, const char* doing) {
  if (result == cudaSuccess) return;
  (void)cudaGetLastError();
  const ErrorCode code = result == cudaErrorMemoryAllocation ? ErrorCode::kOutOfResources : ErrorCode::kInternal;
  throw Error(code, format("cuda, {}: {}", doing, cudaGetErrorString(result)));
}

void use_device(int device) {
  int now = 0;
  need(cudaGetDevice(&now), "choosing a GPU");
  if (now != device) need(cudaSetDevice(device), "choosing a GPU");
}

void* take_memory(std::size_t bytes) {
  void* data = nullptr;
  const cudaError_t result = cudaMalloc(&data, bytes);
  if (result == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();
    std::size_t free = 0, total = 0;
    (void)cudaMemGetInfo(&free, &total);
    throw Error(ErrorCode::kOutOfResources, format("the GPU has no {} MiB of memory to give: {} of {} MiB are free",
                                                   bytes >> 20, free >> 20, total >> 20));
  }
  need(result, "allocating memory");  // an error of kernels before it is no lack of memory
  return data;
}

Buffer allocate_device(std::size_t bytes) {
  if (bytes == 0) return {};
  return Buffer(take_memory(bytes), bytes, [](void* p, std::size_t) { cudaFree(p); });
}

Buffer allocate_pinned(std::size_t bytes) {
  if (bytes == 0) return {};
  void* data = nullptr;
  if (cudaHostAlloc(&data, bytes, cudaHostAllocPortable | cudaHostAllocMapped) != cudaSuccess) {
    (void)cudaGetLastError();
    throw Error(ErrorCode::kOutOfResources, format("the machine has no {} MiB of pinned memory to give", bytes >> 20));
  }
  std::memset(data, 0, bytes);
  return Buffer(data, bytes, [](void* p, std::size_t) { cudaFreeHost(p); });
}

std::byte* Machine::workspace(std::size_t bytes) {
  const std::size_t had = workspaces_.empty() ? 0 : workspaces_.back().bytes();
  if (had < bytes) workspaces_.push_back(allocate_device(std::max(bytes, 2 * had)));
  return workspaces_.back().bytes_data();
}

const void* Machine::table(const Weight* first, std::span<const std::byte> contents) {
  Table& table = tables_[first];
  if (!std::ranges::equal(table.contents, contents)) {
    table.contents.assign(contents.begin(), contents.end());
    table.memory = allocate_device(contents.size());
    need(cudaMemcpyAsync(table.memory.data(), contents.data(), contents.size(), cudaMemcpyHostToDevice, stream),
         "copying the places of experts");
    need(cudaStreamSynchronize(stream), "copying the places of experts");
  }
  return table.memory.data();
}

const Fp8Weight* Machine::fp8_table_of(std::span<const Weight* const> weights) {
  std::vector<Fp8Weight> places;
  for (const Weight* weight : weights) places.push_back({of(weight).tiles(), of(weight).tile_scales()});
  return static_cast<const Fp8Weight*>(table(weights.front(), std::as_bytes(std::span(places))));
}

const std::byte* const* Machine::bf16_table_of(std::span<const Weight* const> weights) {
  std::vector<const std::byte*> places;
  for (const Weight* weight : weights) places.push_back(of(weight).bf16_tiles());
  return static_cast<const std::byte* const*>(table(weights.front(), std::as_bytes(std::span(places))));
}

}  // namespace tandem::cuda
