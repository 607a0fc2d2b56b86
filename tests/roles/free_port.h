// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Ports of loopback for workers that a test starts.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "roles/control_connection.h"

namespace tandem {

// One that nobody listens on and that no other test of this machine is given. A process has blocks of ports, each for
// as long as it listens on the block's first; they lie below the ports that connections take by themselves.
inline std::int32_t free_port() {
  constexpr std::int32_t kFirst = 12'000, kEnd = 32'000, kBlock = 50;
  static std::int32_t block = kFirst - kBlock, next = kFirst;
  static std::vector<Descriptor> guards;
  const auto listen = [](std::int32_t port) -> Descriptor {
    try {
      return listen_on("127.0.0.1", port);
    } catch (const Error&) {
      return Descriptor();  // taken
    }
  };
  while (block < kEnd) {
    while (next < block + kBlock)
      if (listen(next++)) return next - 1;
    Descriptor guard;
    while (!guard && (block += kBlock) < kEnd) guard = listen(block);
    guards.push_back(std::move(guard));
    next = block + 1;
  }
  ADD_FAILURE() << "no free port";
  return 0;
}

}  // namespace tandem
