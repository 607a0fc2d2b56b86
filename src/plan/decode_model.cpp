// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "plan/decode_model.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/format.h"
#include "ops/weight.h"

namespace tandem {

namespace {

constexpr double kTokenTables = 2;  // embedding and head, both in bf16
constexpr double kBf16Bytes = 2;
constexpr double kSendBytes = 1, kReturnBytes = 2;  // of an element: FP8 to F, bf16 back

double weight_bytes(double flops, DType dtype) {
  const DTypeTraits type = traits(dtype);
  return flops / 2 * static_cast<double>(type.block_bytes) / static_cast<double>(type.block_elements);
}

LayerLoad load_of(const LayerOperators& operators, const LayerRun& run, const DecodeSettings& settings) {
  LayerLoad load{
      .count = run.count, .experts = run.layer.ffn.experts, .experts_per_token = run.layer.ffn.experts_per_token};
  const StepRows token{{settings.context}};
  double output_flops = 0;  // of the last projection
  for (const PricedOperator& op : operators.attention(run.layer, token)) {
    const auto flops = static_cast<double>(op.work.flops);
    if (op.part == CostPart::kProjection) {
      load.projection_flops += flops;
      output_flops = flops;
    }
    if (op.part == CostPart::kAttentionCore) load.core_flops += flops;
    load.kv_bytes += static_cast<double>(op.kv_bytes);
  }
  for (const PricedOperator& op : operators.experts(run.layer, token)) {
    if (op.part != CostPart::kFfn) continue;
    (op.name == "grouped_matmul" ? load.routed_flops : load.shared_flops) += static_cast<double>(op.work.flops);
  }
  const DType weights = settings.precision.weights;
  load.projection_bytes =
      weight_bytes(load.projection_flops - output_flops * (1 - 1.0 / settings.output_parallel), weights);
  load.shared_bytes = weight_bytes(load.shared_flops, weights);
  if (load.experts > 0) {
    load.routed_bytes = weight_bytes(load.routed_flops, weights) / load.experts_per_token * load.experts;
    load.log_unchosen = std::log1p(-static_cast<double>(load.experts_per_token) / load.experts);
  }
  return load;
}

void check_settings(const DecodeSettings& s) {
  if (s.context < 1) throw Error(ErrorCode::kInvalidArgument, "context has to be at least one token");
  if (s.output_parallel < 1 || s.output_parallel > s.attention.gpus_per_server)
    throw Error(ErrorCode::kInvalidArgument,
                format("output_parallel is {}, has to be between 1 and {}, the GPUs of a server", s.output_parallel,
                       s.attention.gpus_per_server));
  check_fraction("efficiency of attention", s.efficiency.attention);
  check_fraction("efficiency of projections", s.efficiency.projection);
  check_fraction("efficiency of the FFN", s.efficiency.ffn);
  check_fraction("efficiency of the network", s.efficiency.network);
  check_fraction("fraction of memory", s.memory_fraction);
}

}  // namespace

void check_time_per_token(double seconds) {
  if (!(seconds >= 1e-5 && seconds <= 3600))
    throw Error(ErrorCode::kInvalidArgument,
                format("time per token is {} ms, has to be between 0.01 ms and an hour", seconds * 1e3));
}

void check_fraction(const char* what, double value) {
  if (!(value >= 0.001 && value <= 1))
    throw Error(ErrorCode::kInvalidArgument, format("{} is {}, has to be between 0.001 and 1", what, value));
}

const char* name(Stage stage) {
  static constexpr const char* kNames[] = {"attention", "A to F", "FFN", "F to A", "round trip"};
  return kNames[static_cast<std::size_t>(stage)];
}

double StageTimes::slowest() const {
  return std::max(std::max(attention, ffn), std::max(to_ffn, to_attention));
}

double StageTimes::period(std::int32_t micro_batches) const {
  return std::max(micro_batches * slowest(), round());
}

DecodeModel::DecodeModel(const ModelShape& shape, const DecodeSettings& settings) : shape_(shape), settings_(settings) {
  check_settings(settings);
  const LayerOperators operators(shape, settings.precision, Accounting::kPaper);
  for (const LayerRun& run : shape.kinds()) kinds_.push_back(load_of(operators, run, settings));
  const Hardware& a = settings.attention;
  core_rate_ = settings.precision.kv == DType::kF8E4M3 ? a.flops() : a.bf16_flops;
  head_bytes_ = kBf16Bytes * shape.vocab * shape.hidden;
  attention_weight_bytes_ = kTokenTables * head_bytes_;
  for (const LayerLoad& kind : kinds_) {
    attention_weight_bytes_ += kind.count * (kind.projection_bytes + kBf16Bytes * kind.experts * shape.hidden);
    kv_bytes_per_sequence_ += kind.count * kind.kv_bytes;
  }
}

bool DecodeModel::fits_model(const Candidate& c) const {
  const std::int32_t tp = c.tensor_parallel;
  if (tp < 1 || tp > KSlices::kCountMax || (tp & (tp - 1)) != 0 || settings_.ffn.gpus_per_server % tp != 0)
    return false;
  return expert_parallel(c) <= std::max(1, shape_.experts());
}

// An expert that no token of the micro-batch has chosen is not read. Groups are as even as whole experts can be, and
// the time is that of the fullest; what every token uses is cut into at most eight slices.
double DecodeModel::ffn_seconds(const Candidate& c, const LayerLoad& kind, double rows) const {
  const double groups = expert_parallel(c), gpus = ffn_gpus(c);
  const double shared_parts = std::min<double>(gpus, KSlices::kCountMax);
  double bytes = kind.shared_bytes / shared_parts, flops = rows * kind.shared_flops / shared_parts;
  if (kind.experts > 0) {
    const double uneven = std::ceil(kind.experts / groups) * groups / kind.experts;
    const double choice = static_cast<double>(kind.experts_per_token) / kind.experts;
    // Beyond 40 choices of an expert the rest is below a double's last bit.
    const double hit = choice >= 1 || rows * choice > 40 ? 1 : 1 - std::exp(rows * kind.log_unchosen);
    bytes += kind.routed_bytes * hit * uneven / gpus;
    flops += rows * kind.routed_flops * uneven / gpus;
  }
  const Hardware& f = settings_.ffn;
  return std::max(bytes / f.memory_bandwidth, flops / f.flops()) / settings_.efficiency.ffn;
}

StageTimes DecodeModel::stages(const Candidate& c, const LayerLoad& kind, double rows) const {
  const Hardware &a = settings_.attention, &f = settings_.ffn;
  const Efficiency& e = settings_.efficiency;
  StageTimes t;
  t.attention =
      std::max(kind.kv_bytes / a.memory_bandwidth, kind.core_flops / core_rate_) * rows / e.attention +
      std::max(kind.projection_bytes / a.memory_bandwidth, kind.projection_flops * rows / a.flops()) / e.projection;
  t.ffn = ffn_seconds(c, kind, rows * attention_gpus(c));
  // Every server gets every row, over the rail of the GPU that it comes from.
  const double row = shape_.hidden;
  const double from_a = rows * row * c.ffn_servers / a.network_bandwidth;
  const double into_f = rows * row * attention_gpus(c) / f.gpus_per_server / f.network_bandwidth;
  const double element = std::max(from_a, into_f) / e.network;
  t.to_ffn = element * kSendBytes;
  t.to_attention = element * kReturnBytes;
  return t;
}

double DecodeModel::head_seconds(double rows_of_step) const {
  const Hardware& a = settings_.attention;
  const double flops = rows_of_step * 2 * shape_.vocab * shape_.hidden;
  return std::max(head_bytes_ / a.memory_bandwidth, flops / a.bf16_flops) / settings_.efficiency.projection;
}

double DecodeModel::tpot(const Candidate& c, double rows) const {
  double all = head_seconds(rows * c.micro_batches);
  for (const LayerLoad& kind : kinds_) all += kind.count * stages(c, kind, rows).period(c.micro_batches);
  return all;
}

Stage DecodeModel::bound(const Candidate& c, double rows) const {
  double by[5] = {};
  for (const LayerLoad& kind : kinds_) {
    const StageTimes t = stages(c, kind, rows);
    const double slowest = t.slowest();
    const Stage stage = t.bubbles(c.micro_batches) ? Stage::kRound
                        : slowest == t.attention   ? Stage::kAttention
                        : slowest == t.ffn         ? Stage::kFfn
                        : slowest == t.to_ffn      ? Stage::kToFfn
                                                   : Stage::kToAttention;
    by[static_cast<std::size_t>(stage)] += kind.count * t.period(c.micro_batches);
  }
  return static_cast<Stage>(std::max_element(std::begin(by), std::end(by)) - std::begin(by));
}

double DecodeModel::tokens_per_second(const Candidate& c, double rows) const {
  return rows * c.micro_batches * attention_gpus(c) / tpot(c, rows);
}

double DecodeModel::usd_per_hour(const Candidate& c) const {
  return attention_gpus(c) * settings_.attention.usd_per_hour + ffn_gpus(c) * settings_.ffn.usd_per_hour;
}

double DecodeModel::usd_per_million(const Candidate& c, double rows) const {
  return usd_per_hour(c) / 3600 / tokens_per_second(c, rows) * 1e6;
}

double DecodeModel::ffn_weight_bytes(const Candidate& c) const {
  const double groups = expert_parallel(c), gpus = ffn_gpus(c);
  double all = 0;
  for (const LayerLoad& kind : kinds_) {
    double layer = kind.shared_bytes / std::min<double>(gpus, KSlices::kCountMax);
    if (kind.experts > 0) layer += kind.routed_bytes / gpus * std::ceil(kind.experts / groups) * groups / kind.experts;
    all += kind.count * layer;
  }
  return all;
}

double DecodeModel::sequences_max() const {
  const double room = usable_bytes(settings_.attention) - attention_weight_bytes();
  return std::max(0.0, room / kv_bytes_per_sequence());
}

double DecodeModel::link_bits_per_second(const Candidate& c, double rows) const {
  double bytes = 0, seconds = 0;
  for (const LayerLoad& kind : kinds_) {
    const StageTimes t = stages(c, kind, rows);
    bytes += kind.count * t.to_attention * settings_.efficiency.network *
             std::min(settings_.attention.network_bandwidth, settings_.ffn.network_bandwidth);
    seconds += kind.count * t.period(c.micro_batches) / c.micro_batches;
  }
  return 8 * bytes / seconds;
}

}  // namespace tandem
