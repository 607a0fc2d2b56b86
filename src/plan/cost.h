// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What decoding costs on ideal hardware (paper, section 4; Table 6):
//
//   attention  max(FLOPs of the core · USD/FLOP, bytes of KV · USD/byte) + FLOPs of projections · USD/FLOP
//   FFN        FLOPs · USD/FLOP, since with attention apart its batch can be made large enough
//   AFD        the cheapest attention plus the cheapest FFN; the link is taken to be hidden
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "plan/accounting.h"
#include "plan/hardware.h"

namespace tandem {

struct TokenCost {
  double attention_usd = 0;  // of a million tokens
  double ffn_usd = 0;

  double total_usd() const { return attention_usd + ffn_usd; }
};

TokenCost token_cost(const TokenWork& work, const Hardware& hardware);

struct CostQuestion {
  std::vector<ModelShape> models;
  std::vector<Hardware> hardware;
  std::vector<std::int64_t> contexts;
  AccountingOptions accounting;
};

// One model on one accelerator at one context.
struct CostEntry {
  std::size_t model, hardware, context;  // places in the question
  TokenWork work;
  TokenCost cost;
};

// The cheapest accelerator for each half.
struct CostSplit {
  std::size_t attention = 0, ffn = 0;  // places in the question's hardware
  double usd = 0;
};

class CostTable {
 public:
  // Throws Error{kInvalidArgument} when there is no model, hardware or context.
  explicit CostTable(CostQuestion question);

  const CostQuestion& question() const { return question_; }
  // In order of model, context, hardware.
  const std::vector<CostEntry>& entries() const { return entries_; }
  const CostEntry& entry(std::size_t model, std::size_t context, std::size_t hardware) const;
  CostSplit cheapest(std::size_t model, std::size_t context) const;

 private:
  CostQuestion question_;
  std::vector<CostEntry> entries_;
};

// Three times the FLOPs of a decoded token, forward and backward, at full use (paper, Figure 4): USD of a million
// tokens.
double training_usd(const TokenWork& work, const Hardware& hardware);

}  // namespace tandem
