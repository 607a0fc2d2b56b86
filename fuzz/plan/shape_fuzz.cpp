// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Any bytes as a model file: an Error, or a shape whose tokens can be priced.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "base/error.h"
#include "plan/accounting.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace tandem;
  try {
    const ModelShape shape = parse_shape(std::string_view(reinterpret_cast<const char*>(data), size), "input");
    TANDEM_CHECK(shape.parameters() > 0, "a model without parameters");
    for (const Accounting accounting : {Accounting::kPaper, Accounting::kOperators}) {
      const TokenWork work = token_work(shape, 1 << 20, {accounting, {}});
      TANDEM_CHECK(work.kv_bytes > 0 && work.attention_flops > 0, "attention costs nothing");
      TANDEM_CHECK(work.linear_flops > 0 && work.ffn_flops > 0, "a half costs nothing");
    }
  } catch (const Error&) {
  }
  return 0;
}
