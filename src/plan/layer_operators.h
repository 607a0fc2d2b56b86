// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The operators of a step, made from a model's shape alone: the very structs that the engine runs (ops/operators.h),
// with sizes and no memory behind them, for work() to price. A test compares them with those of real steps. What the
// engine has no operator for (lightning attention) is priced here.
#pragma once

#include <deque>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "ops/operators.h"
#include "plan/shape.h"

namespace tandem {

// kOperators: everything that the engine runs. kPaper: the conventions of the Step-3 paper (spec: its Tables 2 and 3):
// only products and attention count, without the router, MLA's value product is as wide as its keys, and an FP8 cache
// has no scales.
enum class Accounting : std::uint8_t { kOperators, kPaper };

// What part of a layer's cost an operator is.
enum class CostPart : std::uint8_t { kAttentionCore, kProjection, kRouter, kFfn, kElementwise };

struct PricedOperator {
  std::string name;
  std::int64_t rows = 0;
  CostPart part = CostPart::kElementwise;
  Work work;
  std::int64_t kv_bytes = 0;  // of bytes_read: cache, or state with its writing
};

struct StepPrecision {
  DType weights = DType::kF8E4M3;
  DType kv = DType::kF8E4M3;  // where the model leaves it open
};

// The rows of one step of one worker that has all of the model. contexts: of each row, the positions that it sees, its
// own included.
struct StepRows {
  std::vector<std::int64_t> contexts;

  std::int64_t rows() const { return static_cast<std::int64_t>(contexts.size()); }
  std::int64_t seen(std::int32_t seen_max) const;  // by all rows together, at most so many by each
};

// Prices the operators of a model's layers one after the other, in the order in which the engine runs them.
class LayerOperators {
 public:
  LayerOperators(const ModelShape& shape, const StepPrecision& precision, Accounting accounting);

  // Of the attention half without route. first: the layer adds nothing that a layer before left.
  std::vector<PricedOperator> attention(const LayerShape& layer, const StepRows& rows, bool first = false) const;
  std::vector<PricedOperator> route(const LayerShape& layer, const StepRows& rows) const;
  // Of all experts and the whole width.
  std::vector<PricedOperator> experts(const LayerShape& layer, const StepRows& rows) const;
  std::vector<PricedOperator> combine(const LayerShape& layer, const StepRows& rows) const;
  std::vector<PricedOperator> embed(const StepRows& rows) const;
  // Final norm and logits of so many rows, without sampling.
  std::vector<PricedOperator> head(std::int64_t logits) const;

  const ModelShape& shape() const { return shape_; }

 private:
  ModelShape shape_;
  StepPrecision precision_;
  Accounting accounting_;
};

}  // namespace tandem
