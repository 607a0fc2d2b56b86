// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "plan/stage_ladders.h"

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <set>
#include <tuple>

#include "base/check.h"
#include "base/error.h"
#include "base/format.h"

namespace tandem {

namespace {

using Names = std::vector<std::string>;

constexpr double kGapsOfRoutedLayer = 6, kGapsOfDenseLayer = 4;  // it has no copies

// Of attention, what every layer has: others come and go as kernels are fused.
const Names kAttention{"norm-in", "q-down-k-v", "q-up", "rope-append", "o", "norm-out", "flag"};
const Names kHead{"norm-head", "head", "sample-greedy", "begin-step"};
const Names kRouted{"exchange-rows", "plan-rows", "gather", "gate-up", "down", "exchange-results", "combine", "flag"};
const Names kDense{"dense-plan-rows", "dense-gather", "dense-gate-up", "dense-down", "dense-combine", "flag"};
const std::string kCore = "mfa-decode-fp8", kLayer = "layer";
// What depends on the layer's kind or on the context, and what is not a kernel; the rest is added up.
const Names kApart{kCore, "router", "seal", kLayer};

Names with(Names names, const Names& more) {
  names.insert(names.end(), more.begin(), more.end());
  return names;
}

// Of the points (x0, y0) and (x1, y1), also beyond them.
double on_line(double x0, double y0, double x1, double y1, double x) {
  return y0 + (y1 - y0) * (x - x0) / (x1 - x0);
}

// Everything follows the clock, also what is bound by memory and does not: the least that it may take. Single readings
// are rough, so all of a batch has the median of its own.
std::vector<StageKernel> with_full_clock(std::vector<StageKernel> kernels) {
  using Batch = std::tuple<std::string, double, double, std::int32_t>;
  const auto batch_of = [](const StageKernel& k) { return Batch{k.stage, k.rows, k.context, k.gpus}; };
  std::map<Batch, std::multiset<double>> clocks;
  for (const StageKernel& k : kernels) clocks[batch_of(k)].insert(k.clock);
  for (StageKernel& k : kernels) {
    const std::multiset<double>& readings = clocks.at(batch_of(k));
    const double clock = *std::next(readings.begin(), static_cast<std::ptrdiff_t>(readings.size() / 2));
    k.seconds *= clock;
    k.seconds_beside *= clock;
    k.clock = 1;
  }
  return kernels;
}

}  // namespace

void TimeLadder::add(double rows, double seconds) {
  auto rung = std::ranges::lower_bound(seconds_, rows, {}, &std::pair<double, double>::first);
  if (rung == seconds_.end() || rung->first != rows)
    rung = seconds_.emplace(rung, rows, seconds);
  else
    rung->second = std::max(rung->second, seconds);
  // Never less than what stands before it.
  if (rung != seconds_.begin()) rung->second = std::max(rung->second, std::prev(rung)->second);
  for (auto next = std::next(rung); next != seconds_.end(); rung = next++)
    next->second = std::max(next->second, rung->second);
}

double TimeLadder::at(double rows) const {
  TANDEM_CHECK(!seconds_.empty(), "a ladder without rungs");
  const auto above = std::ranges::lower_bound(seconds_, rows, {}, &std::pair<double, double>::first);
  if (above == seconds_.begin()) return above->second;
  const auto high = above == seconds_.end() ? std::prev(above) : above;
  if (high == seconds_.begin()) return high->second;
  const auto low = std::prev(high);
  return on_line(low->first, low->second, high->first, high->second, rows);
}

std::vector<double> TimeLadder::rows() const {
  std::vector<double> all;
  all.reserve(seconds_.size());
  for (const auto& [rows, seconds] : seconds_) all.push_back(rows);
  return all;
}

// Of one stage, as they were measured.
class StageLadders::Kernels {
 public:
  void add(const StageKernel& k) {
    // Of a layer's kernels only attention itself sees the context, and so does the layer.
    const double context = k.kernel == kCore || k.kernel == kLayer ? k.context : 0;
    Kernel& kernel = kernels_[k.kernel];
    kernel.alone[context].add(k.rows, k.seconds);
    // Micro-batches on an attention GPU could always take turns, so none pays more for company than for being alone.
    // (It was measured to: further calls of long attention slow the GPU down for everybody.) On an FFN GPU, of whose
    // dense layers the sum counts, what goes on beside the products may hold those up.
    kernel.beside[context].add(k.rows, k.stage == "ffn" ? k.seconds_beside : std::min(k.seconds, k.seconds_beside));
  }

  void check(const char* stage, const Names& names, const std::string& what) const {
    for (const std::string& name : names) {
      const auto found = kernels_.find(name);
      if (found == kernels_.end())
        throw Error(ErrorCode::kInvalidData, format("{}: stage {} has no row of the kernel {}", what, stage, name));
      for (const auto& [context, ladder] : found->second.alone)
        if (ladder.rungs() < 2)
          throw Error(ErrorCode::kInvalidData,
                      format("{}: the kernel {} of stage {} was measured at one batch, two are needed{}", what, name,
                             stage, context > 0 ? format(" at context {}", context) : ""));
    }
  }

  bool empty() const { return kernels_.empty(); }
  Names names_but(const Names& others) const {
    Names names;
    for (const auto& [name, kernel] : kernels_)
      if (std::ranges::find(others, name) == others.end()) names.push_back(name);
    return names;
  }
  const ByContext& alone(const std::string& name) const { return kernels_.at(name).alone; }
  const ByContext& beside(const std::string& name) const { return kernels_.at(name).beside; }
  Times sum(const Names& names) const { return {sum(names, &Kernel::alone), sum(names, &Kernel::beside)}; }

 private:
  struct Kernel {
    ByContext alone, beside;  // what does not depend on the context has one, 0
  };

  // On every rung of any of them: between those all are straight, and so is their sum.
  TimeLadder sum(const Names& names, ByContext Kernel::* which) const {
    TimeLadder all;
    for (const std::string& rung_of : names)
      for (const double rows : (kernels_.at(rung_of).*which).at(0).rows()) {
        double seconds = 0;
        for (const std::string& name : names) seconds += (kernels_.at(name).*which).at(0).at(rows);
        all.add(rows, seconds);
      }
    return all;
  }

  std::map<std::string, Kernel> kernels_;
};

StageLadders::StageLadders(const std::vector<StageKernel>& kernels, const std::string& what) {
  if (std::ranges::any_of(kernels, [](const StageKernel& k) { return k.clock < 1; }))
    full_clock_ = std::make_shared<const StageLadders>(with_full_clock(kernels), what);
  Kernels attention, head;
  std::map<std::int32_t, Kernels> ffn;
  for (const StageKernel& k : kernels)
    (k.stage == "attention" ? attention : k.stage == "head" ? head : ffn[k.gpus]).add(k);
  if (!attention.empty()) {
    attention.check("attention", with(kAttention, with(kApart, attention.names_but(kApart))), what);
    head.check("head", kHead, what);
    has_attention_ = true;
    attention_rows_ = attention.alone("o").at(0).rows();
    attention_rest_ = attention.sum(attention.names_but(kApart));
    router_ = attention.sum({"router"});
    seal_ = attention.sum({"seal"});
    head_ = head.sum(kHead);
    core_alone_ = attention.alone(kCore);
    core_beside_ = attention.beside(kCore);
    layer_ = attention.alone(kLayer);
  }
  for (const auto& [gpus, of_gpus] : ffn) {
    const Kernels& all = of_gpus;
    all.check("ffn", with(with(kRouted, kDense), {kLayer}), what);
    const auto alone = [&all](const Names& names) { return all.sum(names).alone; };
    ffn_[gpus] = {.routed = {.all = alone(kRouted),
                             .copy_in = alone({"exchange-rows"}),
                             .gather = alone({"plan-rows", "gather"}),
                             .gate_up = alone({"gate-up"}),
                             .down = alone({"down"}),
                             .copy_out = alone({"exchange-results"}),
                             .combine = alone({"combine"})},
                  .dense = {.all = alone(kDense),
                            .copy_in = {},
                            .gather = alone({"dense-plan-rows", "dense-gather"}),
                            .gate_up = alone({"dense-gate-up"}),
                            .down = alone({"dense-down"}),
                            .copy_out = {},
                            .combine = alone({"dense-combine"})},
                  .dense_beside = all.sum(kDense).beside,
                  .layer = all.sum({kLayer}),
                  .flag = alone({"flag"})};
  }
}

std::vector<std::int32_t> StageLadders::ffn_gpus() const {
  std::vector<std::int32_t> gpus;
  gpus.reserve(ffn_.size());
  for (const auto& [count, kernels] : ffn_) gpus.push_back(count);
  return gpus;
}

// Attention reads as much as there is context: between two contexts and above the last times lie on a line, of a single
// one through nothing. Below the first they are the first's. A longer context never takes less than a shorter one, also
// where its ladder of rows is the shorter one and goes on flatter.
double StageLadders::at(const ByContext& by_context, double rows, double context) {
  const auto above = by_context.lower_bound(context);
  if (above == by_context.begin()) return above->second.at(rows);
  const auto high = above == by_context.end() ? std::prev(above) : above;
  if (high == by_context.begin()) return high->second.at(rows) * (high->first > 0 ? context / high->first : 1);
  const auto low = std::prev(high);
  double shorter = 0;
  for (auto one = by_context.begin(); one != high; ++one) shorter = std::max(shorter, one->second.at(rows));
  return on_line(low->first, shorter, high->first, std::max(shorter, high->second.at(rows)), context);
}

// Layers were measured whole. Beyond the longest context that they were measured at, attention itself takes longer.
double StageLadders::attention_latency(double rows, double context) const {
  const double longest = layer_.rbegin()->first;
  if (context <= longest) return at(layer_, rows, context);
  return at(layer_, rows, longest) + (at(core_alone_, rows, context) - at(core_alone_, rows, longest));
}

// A dense layer seals where a routed one, which was measured, routes.
StageCost StageLadders::attention(double rows, double context, bool routed) const {
  const StageCost last = (routed ? router_ : seal_).at(rows);
  StageCost cost{.latency = attention_latency(rows, context),
                 .busy = attention_rest_.beside.at(rows) + at(core_beside_, rows, context) + last.busy};
  if (!routed) cost.latency += last.latency - router_.alone.at(rows);
  return cost;
}

StageCost StageLadders::head(double rows) const {
  return head_.at(rows);
}

double StageLadders::gap(const Ffn& ffn, double rows) {
  return std::max(0.0, ffn.layer.alone.at(rows) - ffn.routed.all.at(rows)) / kGapsOfRoutedLayer;
}

StageCost StageLadders::ffn(double rows, std::int32_t gpus, bool routed) const {
  const Ffn& ffn = ffn_.at(gpus);
  const double gaps = (routed ? kGapsOfRoutedLayer : kGapsOfDenseLayer) * gap(ffn, rows);
  return {.latency = ffn.kind(routed).all.at(rows) + gaps,
          .busy = (routed ? ffn.layer.beside : ffn.dense_beside).at(rows)};
}

FfnPieces StageLadders::ffn_pieces(double rows, std::int32_t gpus, bool routed) const {
  const Ffn& ffn = ffn_.at(gpus);
  const FfnKind& kind = ffn.kind(routed);
  FfnPieces pieces{.gather = kind.gather.at(rows),
                   .combine = kind.combine.at(rows),
                   .flag = ffn.flag.at(rows),
                   .gap = gap(ffn, rows)};
  if (routed) {
    pieces.copy_in = kind.copy_in.at(rows);
    pieces.copy_out = kind.copy_out.at(rows);
  }
  return pieces;
}

FfnPieces::Products StageLadders::ffn_products(double rows, std::int32_t gpus, bool routed) const {
  const FfnKind& kind = ffn_.at(gpus).kind(routed);
  return {.gate_up = kind.gate_up.at(rows), .down = kind.down.at(rows)};
}

std::vector<double> StageLadders::attention_rows() const {
  return attention_rows_;
}

std::vector<double> StageLadders::ffn_rows(std::int32_t gpus) const {
  return has_ffn(gpus) ? ffn_.at(gpus).routed.gate_up.rows() : std::vector<double>{};
}

}  // namespace tandem
