// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What every operator of the CPU backend works with: kernels, threads, scratch memory per thread.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/cpu/kernels.h"
#include "ops/cpu/thread_team.h"
#include "ops/operators.h"
#include "tensor/tensor.h"

namespace tandem::cpu {

struct Machine {
  Machine(const Kernels& kernels, int threads)
      : kernels(kernels), team(threads), scratch_(static_cast<std::size_t>(threads)) {}

  // Memory of one thread, 64-byte aligned; grows to the largest need and stays.
  float* scratch(int thread, std::int64_t floats) {
    Buffer& buffer = scratch_[static_cast<std::size_t>(thread)];
    const std::size_t bytes = static_cast<std::size_t>(floats) * sizeof(float);
    if (buffer.bytes() < bytes) buffer = allocate_host(bytes);
    return static_cast<float*>(buffer.data());
  }

  // The same, which all threads share.
  std::byte* shared(std::int64_t bytes) {
    if (shared_.bytes() < static_cast<std::size_t>(bytes)) shared_ = allocate_host(static_cast<std::size_t>(bytes));
    return shared_.bytes_data();
  }

  // Calls body(thread, begin, end) so that the ranges cover [0, count). Work that costs less than waking the team (in
  // elements touched) stays on the caller.
  template <class Body>
  void split(std::int64_t count, std::int64_t cost_each, const Body& body) {
    constexpr std::int64_t kCostWorthATeam = 32 * 1024;
    const int threads = team.threads();
    if (threads == 1 || count * cost_each < kCostWorthATeam) return body(0, std::int64_t{0}, count);
    team.run([&](int thread) { body(thread, count * thread / threads, count * (thread + 1) / threads); });
  }

  const Kernels& kernels;
  ThreadTeam team;

 private:
  std::vector<Buffer> scratch_;
  Buffer shared_;
};

void run(Machine& machine, const EmbedRows& op);
void run(Machine& machine, const RmsNorm& op);
void run(Machine& machine, const AddRmsNorm& op);
void run(Machine& machine, const MatMul& op);
void run(Machine& machine, const GroupedMatMul& op);
void run(Machine& machine, const Rope& op);
void run(Machine& machine, const ProjectHeads& op);
void run(Machine& machine, const GateHeads& op);
void run(Machine& machine, const AppendKv& op);
void run(Machine& machine, const PagedAttention& op);
void run(Machine& machine, const SwiGlu& op);
void run(Machine& machine, const SelectExperts& op);
void run(Machine& machine, const GroupByExpert& op);
void run(Machine& machine, const ClampIds& op);
void run(Machine& machine, const GatherRows& op);
void run(Machine& machine, const ScatterScaledRows& op);
void run(Machine& machine, const CombineExperts& op);
void run(Machine& machine, const Sample& op);
void run(Machine& machine, const QuantiseRows& op);
void run(Machine& machine, const WidenRows& op);
void run(Machine& machine, const Int8MatMul& op);
void run(Machine& machine, const Int8GroupedMatMul& op);
void run(Machine& machine, const AddRows& op);
void run(Machine& machine, const AddLayerNorm& op);
void run(Machine& machine, const QuickGelu& op);
void run(Machine& machine, const Im2Col& op);
void run(Machine& machine, const FullAttention& op);

}  // namespace tandem::cpu
