// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "plan/stage_ladders.h"

#include <algorithm>

#include "base/check.h"
#include "base/error.h"
#include "base/format.h"

namespace tandem {

namespace {

using Names = std::vector<std::string>;

constexpr double kGapsOfRoutedLayer = 6, kGapsOfDenseLayer = 4;  // it has no copies

const Names kAttention{"norm-in",        "q-down-k-v", "norm-q", "q-up",     "rope-append",
                       "mfa-decode-fp8", "quantise-o", "o",      "norm-out", "flag"};
const Names kHead{"norm-head", "head", "sample-greedy", "begin-step"};
const Names kRouted{"exchange-rows", "plan-rows", "gather", "gate-up", "down", "exchange-results", "combine", "flag"};
const Names kDense{"dense-plan-rows", "dense-gather", "dense-gate-up", "dense-down", "dense-combine", "flag"};

Names with(Names names, const Names& more) {
  names.insert(names.end(), more.begin(), more.end());
  return names;
}

// Of the points (x0, y0) and (x1, y1), also beyond them.
double on_line(double x0, double y0, double x1, double y1, double x) {
  return y0 + (y1 - y0) * (x - x0) / (x1 - x0);
}

}  // namespace

void TimeLadder::add(double rows, double seconds) {
  const auto [at, is_new] = seconds_.emplace(rows, seconds);
  if (!is_new) at->second = std::max(at->second, seconds);
  // Never less than what stands before it.
  auto rung = at;
  if (rung != seconds_.begin()) rung->second = std::max(rung->second, std::prev(rung)->second);
  for (auto next = std::next(rung); next != seconds_.end(); rung = next++)
    next->second = std::max(next->second, rung->second);
}

double TimeLadder::at(double rows) const {
  TANDEM_CHECK(!seconds_.empty(), "a ladder without rungs");
  const auto above = seconds_.lower_bound(rows);
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

StageLadders::StageLadders(const std::vector<StageKernel>& kernels, const std::string& what) {
  for (const StageKernel& k : kernels) {
    Kernels& stage = k.stage == "attention" ? attention_ : k.stage == "head" ? head_ : ffn_[k.gpus];
    // Of a layer's kernels only attention itself sees the context, and so does the layer.
    const double context = k.kernel == "mfa-decode-fp8" || k.kernel == "layer" ? k.context : 0;
    stage[k.kernel].alone[context].add(k.rows, k.seconds);
    // Micro-batches on an attention GPU could always take turns, so none pays more for company than for being alone.
    // (It was measured to: further calls of long attention slow the GPU down for everybody.) On an FFN GPU, what goes
    // on beside the products holds those up, and that is its price.
    stage[k.kernel].beside[context].add(k.rows,
                                        k.stage == "ffn" ? k.seconds_beside : std::min(k.seconds, k.seconds_beside));
  }
  check(what);
}

void StageLadders::check(const std::string& what) const {
  const auto need = [&](const char* stage, const Kernels& kernels, const Names& names) {
    for (const std::string& name : names) {
      const auto found = kernels.find(name);
      if (found == kernels.end())
        throw Error(ErrorCode::kInvalidData, format("{}: stage {} has no row of the kernel {}", what, stage, name));
      for (const auto& [context, ladder] : found->second.alone)
        if (ladder.rungs() < 2)
          throw Error(ErrorCode::kInvalidData,
                      format("{}: the kernel {} of stage {} was measured at one batch, two are needed{}", what, name,
                             stage, context > 0 ? format(" at context {}", context) : ""));
    }
  };
  if (!attention_.empty()) {
    need("attention", attention_, with(kAttention, {"router", "seal", "layer"}));
    need("head", head_, kHead);
  }
  for (const auto& [gpus, kernels] : ffn_) need("ffn", kernels, with(with(kRouted, kDense), {"layer"}));
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
double StageLadders::at(const std::map<double, TimeLadder>& by_context, double rows, double context) {
  const auto above = by_context.lower_bound(context);
  if (above == by_context.begin()) return above->second.at(rows);
  const auto high = above == by_context.end() ? std::prev(above) : above;
  if (high == by_context.begin()) return high->second.at(rows) * (high->first > 0 ? context / high->first : 1);
  const auto low = std::prev(high);
  double shorter = 0;
  for (auto one = by_context.begin(); one != high; ++one) shorter = std::max(shorter, one->second.at(rows));
  return on_line(low->first, shorter, high->first, std::max(shorter, high->second.at(rows)), context);
}

StageCost StageLadders::sum(const Kernels& kernels, const Names& names, double rows, double context) {
  StageCost cost;
  for (const std::string& name : names) {
    const Kernel& kernel = kernels.at(name);
    cost.latency += at(kernel.alone, rows, context);
    cost.busy += at(kernel.beside, rows, context);
  }
  return cost;
}

// Layers were measured whole. Beyond the longest context that they were measured at, attention itself takes longer.
double StageLadders::attention_latency(double rows, double context) const {
  const std::map<double, TimeLadder>& layer = attention_.at("layer").alone;
  const double longest = layer.rbegin()->first;
  if (context <= longest) return at(layer, rows, context);
  return at(layer, rows, longest) + sum(attention_, kAttention, rows, context).latency -
         sum(attention_, kAttention, rows, longest).latency;
}

// A dense layer seals where a routed one, which was measured, routes.
StageCost StageLadders::attention(double rows, double context, bool routed) const {
  StageCost cost{.latency = attention_latency(rows, context), .busy = sum(attention_, kAttention, rows, context).busy};
  const StageCost router = sum(attention_, {"router"}, rows, context);
  if (routed) return {cost.latency, cost.busy + router.busy};
  const StageCost seal = sum(attention_, {"seal"}, rows, context);
  return {cost.latency - router.latency + seal.latency, cost.busy + seal.busy};
}

StageCost StageLadders::head(double rows) const {
  return sum(head_, kHead, rows, 0);
}

StageCost StageLadders::ffn(double rows, std::int32_t gpus, bool routed) const {
  StageCost cost = sum(ffn_.at(gpus), routed ? kRouted : kDense, rows, 0);
  cost.latency += (routed ? kGapsOfRoutedLayer : kGapsOfDenseLayer) * ffn_gap(rows, gpus);
  return cost;
}

double StageLadders::ffn_gap(double rows, std::int32_t gpus) const {
  const Kernels& kernels = ffn_.at(gpus);
  const double layer = at(kernels.at("layer").alone, rows, 0);
  return std::max(0.0, layer - sum(kernels, kRouted, rows, 0).latency) / kGapsOfRoutedLayer;
}

FfnPieces StageLadders::ffn_pieces(double rows, std::int32_t gpus, bool routed) const {
  const auto seconds = [&](const Names& names) { return sum(ffn_.at(gpus), names, rows, 0).latency; };
  FfnPieces pieces{.flag = seconds({"flag"}), .gap = ffn_gap(rows, gpus)};
  if (routed) {
    pieces.copy_in = seconds({"exchange-rows"});
    pieces.gather = seconds({"plan-rows", "gather"});
    pieces.copy_out = seconds({"exchange-results"});
    pieces.combine = seconds({"combine"});
  } else {
    pieces.gather = seconds({"dense-plan-rows", "dense-gather"});
    pieces.combine = seconds({"dense-combine"});
  }
  return pieces;
}

FfnPieces::Products StageLadders::ffn_products(double rows, std::int32_t gpus, bool routed) const {
  const auto seconds = [&](const char* kernel) { return at(ffn_.at(gpus).at(kernel).alone, rows, 0); };
  return {.gate_up = seconds(routed ? "gate-up" : "dense-gate-up"), .down = seconds(routed ? "down" : "dense-down")};
}

std::vector<double> StageLadders::attention_rows() const {
  return attention_.empty() ? std::vector<double>{} : attention_.at("o").alone.begin()->second.rows();
}

std::vector<double> StageLadders::ffn_rows(std::int32_t gpus) const {
  return has_ffn(gpus) ? ffn_.at(gpus).at("gate-up").alone.begin()->second.rows() : std::vector<double>{};
}

}  // namespace tandem
