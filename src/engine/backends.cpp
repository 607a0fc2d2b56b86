// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "engine/backends.h"

#include "base/error.h"
#include "base/format.h"
#include "ops/cpu/cpu_backend.h"
#include "ops/reference/reference_backend.h"

namespace tandem {

std::unique_ptr<Backend> make_backend(const std::string& name, const std::string& variant, std::int32_t threads) {
  if (name == "reference") return make_reference_backend();
  if (name == "cpu") return make_cpu_backend({.threads = threads, .variant = variant});
  throw Error(ErrorCode::kInvalidArgument, format("backend is \"{}\", there are: cpu, reference (--backend)", name));
}

}  // namespace tandem
