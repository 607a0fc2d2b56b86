// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "plan/cost.h"

#include <algorithm>

#include "base/error.h"

namespace tandem {

namespace {
constexpr double kMillion = 1e6;
}

TokenCost token_cost(const TokenWork& work, const Hardware& hardware) {
  const double flop = hardware.usd_per_flop() * kMillion, byte = hardware.usd_per_byte() * kMillion;
  return {std::max(work.attention_flops * flop, work.kv_bytes * byte) + work.linear_flops * flop,
          work.ffn_flops * flop};
}

double training_usd(const TokenWork& work, const Hardware& hardware) {
  return 3 * (work.attention_flops + work.linear_flops + work.ffn_flops) * hardware.usd_per_flop() * kMillion;
}

CostTable::CostTable(CostQuestion question) : question_(std::move(question)) {
  const CostQuestion& q = question_;
  if (q.models.empty() || q.hardware.empty() || q.contexts.empty())
    throw Error(ErrorCode::kInvalidArgument, "a cost needs at least one model, one accelerator and one context");
  for (std::size_t m = 0; m < q.models.size(); ++m) {
    for (std::size_t c = 0; c < q.contexts.size(); ++c) {
      const TokenWork work = token_work(q.models[m], q.contexts[c], q.accounting);
      for (std::size_t h = 0; h < q.hardware.size(); ++h)
        entries_.push_back({m, h, c, work, token_cost(work, q.hardware[h])});
    }
  }
}

const CostEntry& CostTable::entry(std::size_t model, std::size_t context, std::size_t hardware) const {
  return entries_[(model * question_.contexts.size() + context) * question_.hardware.size() + hardware];
}

CostSplit CostTable::cheapest(std::size_t model, std::size_t context) const {
  CostSplit split;
  for (std::size_t h = 1; h < question_.hardware.size(); ++h) {
    const TokenCost& cost = entry(model, context, h).cost;
    if (cost.attention_usd < entry(model, context, split.attention).cost.attention_usd) split.attention = h;
    if (cost.ffn_usd < entry(model, context, split.ffn).cost.ffn_usd) split.ffn = h;
  }
  split.usd = entry(model, context, split.attention).cost.attention_usd + entry(model, context, split.ffn).cost.ffn_usd;
  return split;
}

}  // namespace tandem
