// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Programmatic dependent launch: a kernel may start while the one before it in the stream still runs, and waits here
// until that one has ended and its writes are seen.
#pragma once

namespace tandem::ptx {

__device__ inline void wait_for_previous_kernel() {
  asm volatile("griddepcontrol.wait;" ::: "memory");
}

__device__ inline void let_next_kernel_start() {
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

}  // namespace tandem::ptx
