// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Any bytes as a hardware file: an Error, or figures that can be reckoned with.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "base/error.h"
#include "plan/hardware.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const tandem::Hardware h =
        tandem::parse_hardware(std::string_view(reinterpret_cast<const char*>(data), size), "input");
    TANDEM_CHECK(h.usd_per_flop() > 0 && std::isfinite(h.usd_per_flop()), "a price is no number");
    TANDEM_CHECK(h.usd_per_byte() > 0 && std::isfinite(h.usd_per_byte()), "a price is no number");
    TANDEM_CHECK(h.server_network() > 0 && std::isfinite(h.roofline()), "a rate is no number");
  } catch (const tandem::Error&) {
  }
  return 0;
}
