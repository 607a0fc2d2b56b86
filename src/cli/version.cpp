// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "cli/version.h"

#include "base/format.h"
#include "ops/cpu/cpu_backend.h"

namespace tandem {

namespace {

std::string compiler() {
#if defined(__clang__)
  return format("clang {}.{}.{}", __clang_major__, __clang_minor__, __clang_patchlevel__);
#else
  return format("gcc {}.{}.{}", __GNUC__, __GNUC_MINOR__, __GNUC_PATCHLEVEL__);
#endif
}

}  // namespace

std::string version_text() {
  std::string text =
      format("tandem {}\ncompiler     {}\nbuild type   {}\n", TANDEM_VERSION, compiler(), TANDEM_BUILD_TYPE);
  for (const CpuVariant& variant : cpu_variants())
    text += format("cpu variant  {:<9} {}\n", variant.name,
                   variant.available() ? "runs here" : "not here: the machine lacks " + variant.missing);
  return text;
}

}  // namespace tandem
