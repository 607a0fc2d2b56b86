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
constexpr std::int32_t kDraws = 16;

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

const StageLadders* at_full_clock(const std::shared_ptr<const StageLadders>& ladders) {
  return ladders ? &ladders->at_full_clock() : nullptr;
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
  const double m = micro_batches, elsewhere = to_ffn + ffn_alone + to_attention;
  double longest = std::max(m * slowest(), round());
  const auto rate = [this](double n) { return n / std::max(attention_alone, n * attention); };
  // A straight piece from n to n + 1 is above the rate everywhere else (more beside each other gain ever less), so the
  // period is the longest that any piece allows. The piece from 0 says the round's.
  for (double n = 1; n < m && attention_alone > attention; ++n) {
    const double gain = rate(n + 1) - rate(n);
    longest = std::max(longest, m * (1 + elsewhere * gain) / (rate(n) + (m - n) * gain));
  }
  return longest;
}

DecodeModel::DecodeModel(const ModelShape& shape, const DecodeSettings& settings) : shape_(shape), settings_(settings) {
  check_settings(settings);
  const LayerOperators operators(shape, settings.precision, Accounting::kPaper);
  const std::vector<LayerRun> kinds = shape.kinds();
  for (const LayerRun& run : kinds) kinds_.push_back(load_of(operators, run, settings));
  for (const LayerRun& run : shape.runs) {
    const auto like = std::ranges::find_if(kinds, [&](const LayerRun& kind) { return kind.layer == run.layer; });
    runs_.emplace_back(static_cast<std::size_t>(like - kinds.begin()), run.count);
  }
  if (settings.ffn_ladders)
    for (const std::int32_t gpus : settings.ffn_ladders->ffn_gpus())
      for (std::size_t i = 0; i < kinds_.size(); ++i)
        if (const LayerLoad& kind = kinds_[i]; kind.experts > 0)
          busiest_.emplace(std::pair{i, gpus}, BusiestRows(kind.experts, kind.experts_per_token, gpus, kDraws));
  const Hardware& a = settings.attention;
  core_rate_ = settings.precision.kv == DType::kF8E4M3 ? a.flops() : a.bf16_flops;
  head_bytes_ = kBf16Bytes * shape.vocab * shape.hidden;
  attention_weight_bytes_ = kTokenTables * head_bytes_;
  for (const LayerLoad& kind : kinds_) {
    attention_weight_bytes_ += kind.count * (kind.projection_bytes + kBf16Bytes * kind.experts * shape.hidden);
    kv_bytes_per_sequence_ += kind.count * kind.kv_bytes;
  }
}

std::int64_t DecodeModel::width_block() const {
  const DType weights = settings_.precision.weights;
  if (weights == DType::kF8E4M3) return kScaleBlock;
  return std::max<std::int64_t>(32, static_cast<std::int64_t>(traits(weights).block_elements));
}

bool DecodeModel::fits_model(const Candidate& c) const {
  const std::int32_t tp = c.tensor_parallel;
  if (tp < 1 || tp > KSlices::kCountMax || (tp & (tp - 1)) != 0 || settings_.ffn.gpus_per_server % tp != 0)
    return false;
  if (settings_.ffn_ladders && (tp != 1 || !settings_.ffn_ladders->has_ffn(ffn_gpus(c)))) return false;
  if (shape_.experts() > 0 && (shape_.expert_width() + width_block() - 1) / width_block() < tp) return false;
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

double DecodeModel::attention_seconds(const LayerLoad& kind, double rows) const {
  const Hardware& a = settings_.attention;
  const Efficiency& e = settings_.efficiency;
  return std::max(kind.kv_bytes / a.memory_bandwidth, kind.core_flops / core_rate_) * rows / e.attention +
         std::max(kind.projection_bytes / a.memory_bandwidth, kind.projection_flops * rows / a.flops()) / e.projection;
}

StageTimes DecodeModel::stages(const Candidate& c, const LayerLoad& kind, double rows) const {
  return stages_by(settings_.attention_ladders.get(), settings_.ffn_ladders.get(), c, kind, rows);
}

StageTimes DecodeModel::stages_by(const StageLadders* attention, const StageLadders* ffn, const Candidate& c,
                                  const LayerLoad& kind, double rows) const {
  const Hardware &a = settings_.attention, &f = settings_.ffn;
  const Efficiency& e = settings_.efficiency;
  const bool routed = kind.experts > 0;
  StageTimes t;
  if (attention != nullptr) {
    const StageCost cost = attention->attention(rows, static_cast<double>(settings_.context), routed);
    t.attention = cost.busy;
    t.attention_alone = cost.latency;
  } else {
    t.attention = t.attention_alone = attention_seconds(kind, rows);
  }
  if (ffn != nullptr && ffn->has_ffn(ffn_gpus(c))) {
    const StageCost cost = ffn->ffn(rows * attention_gpus(c), ffn_gpus(c), routed);
    t.ffn = cost.busy;
    t.ffn_alone = cost.latency;
  } else {
    t.ffn = t.ffn_alone = ffn_seconds(c, kind, rows * attention_gpus(c));
  }
  // Every server gets every row, over the rail of the GPU that it comes from.
  const double row = shape_.hidden;
  const double from_a = rows * row * c.ffn_servers / a.network_bandwidth;
  const double into_f = rows * row * attention_gpus(c) / f.gpus_per_server / f.network_bandwidth;
  const double element = std::max(from_a, into_f) / e.network;
  t.to_ffn = element * kSendBytes;
  t.to_attention = element * kReturnBytes;
  return t;
}

// Measured, it is a piece of the first layer's stage, of each micro-batch by itself: what the others wait for it is
// less than what it takes.
double DecodeModel::head_seconds(const Candidate& c, double rows) const {
  if (settings_.attention_ladders) {
    const StageTimes first = stages(c, kinds_.front(), rows);
    const StageCost head = settings_.attention_ladders->head(rows);
    StageTimes with_head = first;
    with_head.attention += head.busy;
    with_head.attention_alone += head.latency;
    return with_head.period(c.micro_batches) - first.period(c.micro_batches);
  }
  const Hardware& a = settings_.attention;
  const double flops = rows * c.micro_batches * 2 * shape_.vocab * shape_.hidden;
  return std::max(head_bytes_ / a.memory_bandwidth, flops / a.bf16_flops) / settings_.efficiency.projection;
}

double DecodeModel::tpot(const Candidate& c, double rows) const {
  const double least = tpot_min(c, rows);
  return is_measured() ? std::max(least, simulated_tpot(c, rows)) : least;
}

// Of a roofline there is one product and nothing else.
FfnPieces DecodeModel::ffn_pieces(const Candidate& c, std::size_t kind, double rows) const {
  const StageLadders* measured = at_full_clock(settings_.ffn_ladders);
  const std::int32_t gpus = ffn_gpus(c);
  if (measured == nullptr || !measured->has_ffn(gpus))
    return {.products = {{.gate_up = ffn_seconds(c, kinds_[kind], rows)}}};
  const bool routed = kinds_[kind].experts > 0;
  FfnPieces pieces = measured->ffn_pieces(rows, gpus, routed);
  for (const double drawn : routed ? busiest_.at({kind, gpus}).drawn(rows) : std::vector<double>{rows})
    pieces.products.push_back(measured->ffn_products(drawn, gpus, routed));
  return pieces;
}

double DecodeModel::simulated_tpot(const Candidate& c, double rows) const {
  const StageLadders* attention = at_full_clock(settings_.attention_ladders);
  std::vector<PipelineLayers> of_kind;
  for (std::size_t kind = 0; kind < kinds_.size(); ++kind) {
    const StageTimes t = stages_by(attention, at_full_clock(settings_.ffn_ladders), c, kinds_[kind], rows);
    of_kind.push_back({.attention_alone = t.attention_alone,
                       .attention_busy = t.attention,
                       .to_ffn = t.to_ffn,
                       .to_attention = t.to_attention,
                       .ffn = ffn_pieces(c, kind, rows * attention_gpus(c))});
  }
  PipelineStep step{.micro_batches = c.micro_batches};
  for (const auto& [kind, count] : runs_) {
    step.layers.push_back(of_kind[kind]);
    step.layers.back().count = count;
  }
  if (attention == nullptr) return head_seconds(c, rows) + step_seconds(step);
  const StageCost head = attention->head(rows);
  step.head_alone = head.latency;
  step.head_busy = head.busy;
  return step_seconds(step);
}

double DecodeModel::tpot_min(const Candidate& c, double rows) const {
  double all = head_seconds(c, rows);
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

std::vector<double> DecodeModel::measured_rows(const Candidate& c) const {
  std::vector<double> all;
  if (settings_.attention_ladders) all = settings_.attention_ladders->attention_rows();
  if (settings_.ffn_ladders)
    for (const double rows : settings_.ffn_ladders->ffn_rows(ffn_gpus(c)))
      all.push_back(std::floor(rows / attention_gpus(c)));
  return all;
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
