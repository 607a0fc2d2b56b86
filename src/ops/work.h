// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What an operator costs: the currency of benchmark, planner and simulator.
#pragma once

#include <cstdint>

namespace tandem {

struct Work {
  std::int64_t flops = 0;       // two for a multiply-add
  std::int64_t bytes_read = 0;  // each operand once
  std::int64_t bytes_written = 0;

  std::int64_t bytes() const { return bytes_read + bytes_written; }
  Work& operator+=(const Work& o) {
    flops += o.flops;
    bytes_read += o.bytes_read;
    bytes_written += o.bytes_written;
    return *this;
  }
};

}  // namespace tandem
