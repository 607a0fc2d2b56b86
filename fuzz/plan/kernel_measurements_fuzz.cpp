// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Any bytes as what the kernel benchmark printed: an Error, or efficiencies between nothing and one and stages
// that take some time.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "base/error.h"
#include "plan/measured.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace tandem;
  static const ModelShape shape = find_shape("step3");
  try {
    const KernelMeasurements measured =
        parse_kernel_measurements(std::string_view(reinterpret_cast<const char*>(data), size), "input");
    const Efficiency e = measured_efficiency(measured, shape, DType::kF8E4M3, 8192).efficiency;
    for (const double part : {e.attention, e.projection, e.ffn, e.network})
      TANDEM_CHECK(part > 0 && part <= 1, "an efficiency is none");
    const MeasuredStages stages = measured_stages(measured, shape, DType::kF8E4M3, "input");
    if (stages.ladders && stages.ladders->has_attention())
      for (const double rows : {1., 100., 1e6})
        TANDEM_CHECK(stages.ladders->attention(rows, 8192, true).latency > 0, "a stage takes no time");
  } catch (const Error&) {
  }
  return 0;
}
