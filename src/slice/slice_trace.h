// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// When every micro-batch of a slice passed its stages, layer by layer, and what follows: how long the stages take, how
// long each side was idle and for whom it waited, and a timeline. Needs no GPU.
//
// A micro-batch's layer, in the order in which it happens:
//   returned     attention has the FFN's sum of the layer before (layer 0: of the last step's last layer); it begins
//   handed over  attention's last kernel has ended; only the link follows
//   seen         it is on the FFN GPU
//   gathered     the rows of this GPU's experts are together
//   begun        their products begin: what the others' leave of the GPU is small, so when those have ended (derived)
//   multiplied   they have ended
//   sent         results are added up and stored into the attention GPU's memory; only the link follows
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tandem {

// Microseconds, by one clock. Of a side that was not there: 0.
struct LayerTimes {
  double returned = 0, handed_over = 0, seen = 0, gathered = 0, begun = 0, multiplied = 0, sent = 0;
};

struct SliceTrace {
  std::int32_t steps = 0, layers = 0, micro_batches = 0;
  bool attention = true, ffn = true;  // the sides that were there
  std::vector<LayerTimes> times;      // [steps][layers][micro_batches]
  double clock_error_us = 0;          // of the FFN GPU's times beside the attention GPU's, at most
  double step_us = 0;                 // of these steps, which stamps make longer

  const LayerTimes& at(std::int32_t step, std::int32_t layer, std::int32_t m) const {
    const std::int64_t layer_of_all = std::int64_t{step} * layers + layer;
    return times[static_cast<std::size_t>(layer_of_all * micro_batches + m)];
  }
};

struct Quantiles {
  double p50 = 0, p99 = 0;  // microseconds
};
Quantiles quantiles_of(std::vector<double> values);  // of none: zeros

// Of one layer and micro-batch.
struct TracedStages {
  Quantiles attention;  // from the return to the hand-over, in company of the other micro-batches; not of layer 0
  Quantiles head;       // the same of layer 0, with the head and sampling of the step before
  Quantiles to_ffn;     // from the hand-over until the FFN GPU sees it
  Quantiles queue;      // from the gathering to the products
  Quantiles gather, products, combine;
  Quantiles ffn;  // these three, without waiting in between
  Quantiles to_attention;
};

// Shares of the time in which a side had nothing to do, by what the micro-batch that ended it had done meanwhile.
struct IdleShares {
  double for_other_side = 0, for_link = 0;

  double all() const { return for_other_side + for_link; }
};

enum class SlowPart : std::uint8_t { kNone, kAttention, kFfn, kLink };
std::string to_string(SlowPart part);

struct TraceSummary {
  TracedStages stages;
  IdleShares attention, ffn;
  double products = 0;  // share of the time in which products ran

  // Who is waited for most. Nobody where it is less than kWaitMin of the time.
  SlowPart waited_for() const;
  static constexpr double kWaitMin = .02;
};
TraceSummary summary_of(const SliceTrace& trace);

// Fills in begun: products run one micro-batch after the other.
void derive_begun(SliceTrace& trace);

}  // namespace tandem
