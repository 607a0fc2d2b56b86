// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The CPU backend: vector kernels chosen for the machine at run time, and a team of threads. Weights stay in the type
// they were stored in; arithmetic is f32, but for int8 products, whose sums over a block are of integers.
//
// Results do not depend on the number of threads or of rows in a batch. They may differ in the last bits between
// variants.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ops/backend.h"

namespace tandem {

struct CpuOptions {
  int threads = 1;               // the calling thread included
  std::string variant = "auto";  // or a name of cpu_variants()
};

// One set of kernels in this program.
struct CpuVariant {
  std::string name;     // "amx", "avx512_vnni", "avx512", "avx2", "baseline"
  std::string missing;  // what the machine lacks for it; empty when it can run here
  bool available() const { return missing.empty(); }
};

// All that were compiled, best first; the last one runs everywhere.
std::vector<CpuVariant> cpu_variants();

// Throws Error: kInvalidArgument for options out of range, kUnsupported for a variant that the machine lacks.
std::unique_ptr<Backend> make_cpu_backend(const CpuOptions& options);

}  // namespace tandem
