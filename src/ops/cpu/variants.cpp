// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cpu/variants.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <array>

#include "base/error.h"
#include "base/format.h"
#include "ops/cpu/cpu_backend.h"

namespace tandem {

namespace cpu {

namespace {

struct Variant {
  const char* name;
  std::string (*missing)();
  const Kernels& (*kernels)();
};

#if defined(__x86_64__)
// The builtin also asks whether the operating system saves the registers.
#define TANDEM_LACKS(list, feature) \
  if (!__builtin_cpu_supports(feature)) list += list.empty() ? feature : " " feature

std::string missing_for_avx2() {
  std::string list;
  TANDEM_LACKS(list, "avx2");
  TANDEM_LACKS(list, "fma");
  TANDEM_LACKS(list, "bmi");
  TANDEM_LACKS(list, "bmi2");
  TANDEM_LACKS(list, "f16c");
  TANDEM_LACKS(list, "pclmul");
  TANDEM_LACKS(list, "aes");
  return list;
}

std::string missing_for_avx512() {
  std::string list = missing_for_avx2();
  TANDEM_LACKS(list, "avx512f");
  TANDEM_LACKS(list, "avx512bw");
  TANDEM_LACKS(list, "avx512cd");
  TANDEM_LACKS(list, "avx512dq");
  TANDEM_LACKS(list, "avx512vl");
  return list;
}

std::string missing_for_avx512_vnni() {
  std::string list = missing_for_avx512();
  TANDEM_LACKS(list, "avx512vnni");
  return list;
}
#undef TANDEM_LACKS

// Tiles are state of a thread that the operating system has to be asked for, once a process. Not every compiler's
// builtin knows of them.
std::string missing_for_amx() {
  std::string list = missing_for_avx512_vnni();
  unsigned a = 0, b = 0, c = 0, d = 0;
  const bool known = __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0;
  const auto lacks = [&](const char* feature) { list += list.empty() ? feature : format(" {}", feature); };
  if (!known || (d >> 24 & 1u) == 0) lacks("amx-tile");
  if (!known || (d >> 25 & 1u) == 0) lacks("amx-int8");
  if (!known || (d >> 22 & 1u) == 0) lacks("amx-bf16");
  if (!list.empty()) return list;
#if defined(__linux__)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  static const bool is_allowed = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  constexpr bool is_allowed = false;
#endif
  return is_allowed ? "" : "the operating system's leave to use tiles";
}
#endif

std::string nothing_missing() {
  return {};
}

// Best first.
constexpr std::array kVariants = {
#if defined(__x86_64__)
    Variant{"amx", missing_for_amx, kernels_amx},
    Variant{"avx512_vnni", missing_for_avx512_vnni, kernels_avx512_vnni},
    Variant{"avx512", missing_for_avx512, kernels_avx512},
    Variant{"avx2", missing_for_avx2, kernels_avx2},
#endif
    Variant{"baseline", nothing_missing, kernels_baseline},
};

}  // namespace

ChosenKernels choose_kernels(const std::string& wanted) {
  std::string names = "auto";
  for (const Variant& variant : kVariants) {
    names += format(", {}", variant.name);
    if (wanted != "auto" && wanted != variant.name) continue;
    const std::string missing = variant.missing();
    if (wanted == "auto" && !missing.empty()) continue;
    if (!missing.empty())
      throw Error(ErrorCode::kUnsupported,
                  format("CPU kernels \"{}\" need what this machine lacks: {}", wanted, missing));
    return {variant.name, &variant.kernels()};
  }
  throw Error(ErrorCode::kInvalidArgument, format("CPU kernels \"{}\" are unknown, there are {}", wanted, names));
}

}  // namespace cpu

std::vector<CpuVariant> cpu_variants() {
  std::vector<CpuVariant> list;
  for (const cpu::Variant& variant : cpu::kVariants) list.push_back({variant.name, variant.missing()});
  return list;
}

}  // namespace tandem
