// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A cost table for people, for programs, and as a picture.
#pragma once

#include <string>

#include "plan/cost.h"

namespace tandem {

// Tables like the paper's: hardware (4, 5), a token's work (2, 3), its price (6). Three digits, as the paper has.
std::string cost_text(const CostTable& table);

// One JSON object a line for each model × context × hardware: model, hardware, context, kv_bytes, attention_flops,
// linear_flops, ffn_flops, attention_usd, ffn_usd (of a million tokens).
std::string cost_json(const CostTable& table);

// The same with a line of names at its head.
std::string cost_csv(const CostTable& table);

// A panel for each context; for each model a bar for each accelerator, attention below FFN, and one for the cheapest
// pair.
std::string cost_svg(const CostTable& table);

// Three significant digits: "2.88e8".
std::string three_digits(double value);

}  // namespace tandem
