// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What the stages of a model take, added up from their kernels as measured over a ladder of batches and contexts
// (tandem bench kernels --stages); routed layers of the FFN, whose rows are drawn, were measured whole. Between two
// rungs times are interpolated, above the last they go on as between the last two; nothing is fitted. The ladder shows
// what a roofline does not: small kernels, tiles that are not full, gaps between kernels, and the clock that a GPU has
// under its power limit.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "plan/micro_batch_pipeline.h"

namespace tandem {

struct StageKernel {
  std::string stage;   // "attention", "head", "ffn"
  std::string kernel;  // "q-up"
  double rows = 0;     // of a micro-batch, on an attention GPU or of all of them at the FFN
  double context = 0;  // of attention
  std::int32_t gpus = 0;
  double seconds = 0;         // one call after the other
  double seconds_beside = 0;  // what a call adds to a stage of several micro-batches beside each other
  double clock = 1;           // that the GPU had meanwhile, of its highest
};

// Of one micro-batch and layer, in seconds.
struct StageCost {
  double latency = 0;  // from its begin to its end, nobody else on the GPU; of a layer as it was measured whole
  double busy = 0;     // that the GPU is taken by it
};

// Times over rows, which never fall: a larger batch that was measured faster than a smaller one is taken to be as slow.
class TimeLadder {
 public:
  void add(double rows, double seconds);  // in any order; of two at the same rows the longer counts
  std::size_t rungs() const { return seconds_.size(); }
  // There is a rung. Below the first its time, as no kernel was seen to be faster.
  double at(double rows) const;
  std::vector<double> rows() const;

 private:
  std::vector<std::pair<double, double>> seconds_;  // by rows
};

class StageLadders {
 public:
  StageLadders() = default;
  // what names the source in messages. Stages without any kernel are not measured; a stage that lacks one of the
  // kernels, or has one with fewer than two rungs, is Error{kInvalidData}.
  StageLadders(const std::vector<StageKernel>& kernels, const std::string& what);

  // The same if the GPU had its highest clock, as one has that rests often enough (measured one after the other, calls
  // bring it to its power limit), and all of it followed the clock: the least.
  const StageLadders& at_full_clock() const { return full_clock_ ? *full_clock_ : *this; }

  bool has_attention() const { return has_attention_; }
  bool has_ffn(std::int32_t gpus) const { return ffn_.contains(gpus); }
  std::vector<std::int32_t> ffn_gpus() const;

  // routed: the layer has a router and experts, else it is dense. Only of what was measured.
  StageCost attention(double rows, double context, bool routed) const;
  StageCost head(double rows) const;
  StageCost ffn(double rows, std::int32_t gpus, bool routed) const;
  // The same in pieces (plan/micro_batch_pipeline.h), without products. The gap is what a routed layer takes longer
  // than its kernels one by one, over the six places where one can be.
  FfnPieces ffn_pieces(double rows, std::int32_t gpus, bool routed) const;
  FfnPieces::Products ffn_products(double rows, std::int32_t gpus, bool routed) const;
  // Batches that were measured: between them times are guessed, at them prices may be least.
  std::vector<double> attention_rows() const;
  std::vector<double> ffn_rows(std::int32_t gpus) const;

 private:
  struct Times {
    TimeLadder alone, beside;
    StageCost at(double rows) const { return {alone.at(rows), beside.at(rows)}; }
  };
  using ByContext = std::map<double, TimeLadder>;
  // Each a sum of kernels, in one ladder.
  struct FfnKind {
    TimeLadder all, copy_in, gather, gate_up, down, copy_out, combine;
  };
  struct Ffn {
    FfnKind routed, dense;
    TimeLadder dense_beside;
    Times layer;
    TimeLadder flag;

    const FfnKind& kind(bool is_routed) const { return is_routed ? routed : dense; }
  };
  class Kernels;
  static double at(const ByContext& by_context, double rows, double context);
  double attention_latency(double rows, double context) const;
  static double gap(const Ffn& ffn, double rows);

  std::shared_ptr<const StageLadders> full_clock_;  // null: it had it, or nobody knows
  bool has_attention_ = false;
  std::vector<double> attention_rows_;
  Times attention_rest_, router_, seal_, head_;  // rest: without the core, and what ends a layer
  ByContext core_alone_, core_beside_, layer_;
  std::map<std::int32_t, Ffn> ffn_;
};

}  // namespace tandem
