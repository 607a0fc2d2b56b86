// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A test of the simulation: linked with a source in which a bug was put on purpose, it says which of 300 seeds finds
// it, be it by the simulation's checks or by one of the program's own.
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <string_view>

#include "sim/fleet/fleet.h"

namespace {

void found_by_own_check(int) {
  constexpr std::string_view kText = "found by a check of the program\n";
  [[maybe_unused]] const ssize_t put = write(STDOUT_FILENO, kText.data(), kText.size());
  _exit(0);
}

}  // namespace

int main() {
  signal(SIGABRT, found_by_own_check);
  const tandem::FleetModel model = tandem::FleetModel::load("tests/goldens/qwen3_moe", 2, 2);
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    const tandem::FleetRun run = tandem::simulate_fleet(model, seed);
    if (run.failure.empty()) continue;
    std::printf("found by seed %d: %s\n", static_cast<int>(seed), run.failure.c_str());
    return 0;
  }
  std::puts("300 seeds do not find it");
  return 1;
}
