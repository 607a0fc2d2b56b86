// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cpu/machine_limits.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/clock.h"
#include "ops/cpu/thread_team.h"
#include "ops/cpu/variants.h"
#include "tensor/tensor.h"

namespace tandem {

namespace {

constexpr std::size_t kReadBytes = 256 << 20;  // several times the last-level cache of one socket's share
constexpr int kRepeats = 5;                    // the best counts: others may be using the machine

// Seconds of the fastest of some runs.
template <class Task>
double fastest(cpu::ThreadTeam& team, const Task& task) {
  const RealClock clock;
  Nanoseconds best = 0;
  for (int i = 0; i < kRepeats; ++i) {
    const Nanoseconds begin = clock.now();
    team.run(task);
    const Nanoseconds taken = std::max<Nanoseconds>(clock.now() - begin, 1);
    best = i == 0 ? taken : std::min(best, taken);
  }
  return static_cast<double>(best) * 1e-9;
}

}  // namespace

MachineLimits measure_machine_limits(const CpuOptions& options) {
  const cpu::Kernels& kernels = *cpu::choose_kernels(options.variant).kernels;
  cpu::ThreadTeam team(options.threads, cpu::ThreadTeam::Together::kAlways);
  const auto threads = static_cast<std::size_t>(team.threads());
  MachineLimits limits{};
  std::vector<float> sinks(threads * 16);  // a cache line each; written so that nothing is optimised away

  const Buffer memory = allocate_host(kReadBytes);
  const std::size_t floats = kReadBytes / sizeof(float) / threads;
  const auto part = [&](int thread) {
    return static_cast<float*>(memory.data()) + static_cast<std::size_t>(thread) * floats;
  };
  // Touched first by the thread that reads it; untouched pages would all be one page of zeros.
  team.run([&](int thread) { std::memset(part(thread), 1, floats * sizeof(float)); });
  const double read_seconds = fastest(team, [&](int thread) {
    sinks[static_cast<std::size_t>(thread) * 16] = kernels.read(part(thread), static_cast<std::int64_t>(floats));
  });
  limits.read_bytes_per_second = static_cast<double>(floats * threads * sizeof(float)) / read_seconds;

  constexpr std::int64_t kRounds = 2'000'000;
  std::vector<double> flops(threads * 8);
  const double math_seconds = fastest(team, [&](int thread) {
    const auto t = static_cast<std::size_t>(thread);
    flops[t * 8] = kernels.multiply_add(kRounds, &sinks[t * 16]);
  });
  for (std::size_t t = 0; t < threads; ++t) limits.flops_per_second += flops[t * 8] / math_seconds;
  return limits;
}

}  // namespace tandem
