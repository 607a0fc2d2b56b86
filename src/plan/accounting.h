// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What one decoded token costs, summed over layers (paper, Tables 2 and 3).
#pragma once

#include "plan/layer_operators.h"

namespace tandem {

struct TokenWork {
  double kv_bytes = 0;         // of the cache read, and of states read and written
  double attention_flops = 0;  // of scores and values
  double linear_flops = 0;     // of the attention half's projections; kOperators: of all else in that half
  double ffn_flops = 0;
};

struct AccountingOptions {
  Accounting accounting = Accounting::kPaper;
  StepPrecision precision;
};

// At this many positions of context, the token's own included. Embedding and head are left out, as in the paper.
TokenWork token_work(const ModelShape& shape, std::int64_t context, const AccountingOptions& options = {});

}  // namespace tandem
