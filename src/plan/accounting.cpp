// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "plan/accounting.h"

namespace tandem {

namespace {

// The paper counts products and attention alone.
bool counts(const PricedOperator& op, Accounting accounting) {
  if (accounting == Accounting::kOperators) return true;
  return op.part == CostPart::kAttentionCore || op.part == CostPart::kProjection || op.part == CostPart::kFfn;
}

}  // namespace

TokenWork token_work(const ModelShape& shape, std::int64_t context, const AccountingOptions& options) {
  const LayerOperators operators(shape, options.precision, options.accounting);
  const StepRows token{{context}};
  TokenWork total;
  for (const LayerRun& run : shape.kinds()) {
    const double count = run.count;
    const auto add_attention_half = [&](const std::vector<PricedOperator>& half) {
      for (const PricedOperator& op : half) {
        if (!counts(op, options.accounting)) continue;
        const double flops = count * static_cast<double>(op.work.flops);
        (op.part == CostPart::kAttentionCore ? total.attention_flops : total.linear_flops) += flops;
        total.kv_bytes += count * static_cast<double>(op.kv_bytes);
      }
    };
    add_attention_half(operators.attention(run.layer, token));
    add_attention_half(operators.route(run.layer, token));
    for (const PricedOperator& op : operators.experts(run.layer, token))
      if (counts(op, options.accounting)) total.ffn_flops += count * static_cast<double>(op.work.flops);
  }
  return total;
}

}  // namespace tandem
