// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// How long a decoding step of a disaggregated deployment takes (paper, sections 3, 5 and 7; spec, sections 9 and 10).
//
// A micro-batch has b rows on each attention GPU. In a layer it passes four stages, each a roofline over its
// efficiency:
//   A    max(KV bytes / bandwidth, FLOPs of the core / rate) + max(weights / bandwidth, FLOPs of projections / rate)
//   A2F  hidden · 1 byte a row, to every FFN server;   F2A  hidden · 2 bytes a row, from every FFN server
//   F    max(weights / bandwidth, FLOPs / rate) of the FFN GPU that holds most
// m micro-batches keep the slowest stage busy when a round takes no longer than m of its turns (no bubble), so a layer
// takes max(m · slowest, A + A2F + F + F2A), and a step the sum over layers and the head.
//
// Where the stages' kernels were measured (plan/stage_ladders.h), A and F are sums of their times instead, and F's
// routed layers what they took as a whole. Then micro-batches share the GPU: one alone takes L, which is longer than
// the time a that it keeps the GPU busy, and n beside each other are done at the rate X(n) = n / max(L, n · a), in
// between on a straight line. With u of m micro-batches in A on average, a layer takes P where m / P = X(u),
// u = m - (A2F + F + F2A) · m / P.
// That, too, takes it that nobody waits for somebody else but for a turn: it is the least that a step takes. Who waits
// for whom is simulated (plan/micro_batch_pipeline.h), kernel by kernel at the FFN, with rows as they are drawn, at the
// GPU's highest clock: at its power limit, where the stages were measured, a GPU does not wait, and one that waits has
// power left for a higher clock. A step takes the longer of both.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "plan/accounting.h"
#include "plan/busiest_rows.h"
#include "plan/hardware.h"
#include "plan/stage_ladders.h"

namespace tandem {

// What fraction of its roofline each part reaches; 1 is ideal.
struct Efficiency {
  double attention = 1;   // the core: KV or its FLOPs
  double projection = 1;  // the attention half's products
  double ffn = 1;
  double network = 1;

  bool operator==(const Efficiency&) const = default;
};

struct DecodeSettings {
  std::int64_t context = 0;  // positions that a row sees, on average
  StepPrecision precision;
  Hardware attention, ffn;
  Efficiency efficiency;
  double memory_fraction = 0.9;  // of an accelerator, for weights and KV
  // GPUs of a server that share the weights of the output projection (paper, footnote 7); what they then exchange
  // inside the server is taken to be hidden.
  std::int32_t output_parallel = 1;
  // Measured kernels of this model, each on its side's hardware; null: the roofline.
  std::shared_ptr<const StageLadders> attention_ladders, ffn_ladders;
};

// A deployment as far as it decides the time of a step. Servers are whole; attention is data parallel in them, the
// width of the experts is cut into tensor_parallel parts inside a server and the experts into ep() groups.
struct Candidate {
  std::int32_t attention_servers = 1, ffn_servers = 1;
  std::int32_t micro_batches = 3;
  std::int32_t tensor_parallel = 8;
};

enum class Stage : std::uint8_t { kAttention, kToFfn, kFfn, kToAttention, kRound };
const char* name(Stage stage);  // kRound: all four one after the other, which is longer than m turns of the slowest

// Of one layer and micro-batch, in seconds.
struct StageTimes {
  double attention = 0, to_ffn = 0, ffn = 0, to_attention = 0;  // that whoever does it is busy
  double attention_alone = 0, ffn_alone = 0;                    // of one micro-batch with nobody beside it

  double slowest() const;
  double round() const { return attention_alone + to_ffn + ffn_alone + to_attention; }
  double period(std::int32_t micro_batches) const;
  double bubble(std::int32_t micro_batches) const { return period(micro_batches) - micro_batches * slowest(); }
  bool bubbles(std::int32_t micro_batches) const { return bubble(micro_batches) > micro_batches * slowest() * 1e-12; }
};

// A kind of layer as the times need it, for one token unless weights are meant.
struct LayerLoad {
  std::int32_t count = 0;
  double kv_bytes = 0, core_flops = 0;
  double projection_flops = 0, projection_bytes = 0;  // bytes: of the weights
  double shared_flops = 0, shared_bytes = 0;          // of what every token uses
  double routed_flops = 0, routed_bytes = 0;          // of all experts
  std::int32_t experts = 0, experts_per_token = 0;
  double log_unchosen = 0;  // log of the chance that a token does not choose a given expert
};

// What goals and settings may be. Throw Error{kInvalidArgument}.
void check_time_per_token(double seconds);            // 10 µs to an hour
void check_fraction(const char* what, double value);  // 0.001 to 1

class DecodeModel {
 public:
  // Throws Error{kInvalidArgument} for settings out of range.
  DecodeModel(const ModelShape& shape, const DecodeSettings& settings);

  const ModelShape& shape() const { return shape_; }
  const DecodeSettings& settings() const { return settings_; }
  const std::vector<LayerLoad>& kinds() const { return kinds_; }

  std::int32_t attention_gpus(const Candidate& c) const {
    return c.attention_servers * settings_.attention.gpus_per_server;
  }
  std::int32_t ffn_gpus(const Candidate& c) const { return c.ffn_servers * settings_.ffn.gpus_per_server; }
  // Groups of experts: the FFN GPUs over tensor_parallel.
  std::int32_t expert_parallel(const Candidate& c) const { return ffn_gpus(c) / c.tensor_parallel; }
  // The multiple at which experts are cut by width (WeightReader::slice_granule).
  std::int64_t width_block() const;
  // Whether the experts can be cut like that: parts of a server, slices of eight, a block for each part, no more groups
  // than experts. Of measured FFN stages, whether it was measured: whole experts on so many GPUs.
  bool fits_model(const Candidate& c) const;

  StageTimes stages(const Candidate& c, const LayerLoad& kind, double rows) const;
  double tpot(const Candidate& c, double rows) const;          // seconds a token
  double tpot_min(const Candidate& c, double rows) const;      // by the stages' rule: the same, or less and at once
  double head_seconds(const Candidate& c, double rows) const;  // of a step
  // The stage that a step's time is mostly made of.
  Stage bound(const Candidate& c, double rows) const;

  double tokens_per_second(const Candidate& c, double rows) const;
  double usd_per_million(const Candidate& c, double rows) const;
  double usd_per_hour(const Candidate& c) const;

  // Whether times come from measured stages, so that they rise in steps, and the batches at which they were measured.
  bool is_measured() const { return settings_.attention_ladders || settings_.ffn_ladders; }
  std::vector<double> measured_rows(const Candidate& c) const;

  // Bytes of one GPU.
  double attention_weight_bytes() const { return attention_weight_bytes_; }  // projections, router, embedding and head
  double ffn_weight_bytes(const Candidate& c) const;
  double kv_bytes_per_sequence() const { return kv_bytes_per_sequence_; }  // of all layers, context tokens
  double usable_bytes(const Hardware& hardware) const { return hardware.memory_bytes * settings_.memory_fraction; }
  // Sequences whose KV fits on one attention GPU.
  double sequences_max() const;
  // Bits a second of one GPU's link in the busier direction while a step runs, averaged over a round.
  double link_bits_per_second(const Candidate& c, double rows) const;

 private:
  StageTimes stages_by(const StageLadders* attention, const StageLadders* ffn, const Candidate& c,
                       const LayerLoad& kind, double rows) const;
  double attention_seconds(const LayerLoad& kind, double rows) const;
  double ffn_seconds(const Candidate& c, const LayerLoad& kind, double rows_of_micro_batch) const;
  FfnPieces ffn_pieces(const Candidate& c, std::size_t kind, double rows) const;
  double simulated_tpot(const Candidate& c, double rows) const;

  ModelShape shape_;
  DecodeSettings settings_;
  std::vector<LayerLoad> kinds_;
  std::vector<std::pair<std::size_t, std::int32_t>> runs_;               // kind and count, in the order of the layers
  std::map<std::pair<std::size_t, std::int32_t>, BusiestRows> busiest_;  // by kind and measured FFN GPUs
  double core_rate_ = 0;                                                 // FLOP/s of the attention's core
  double head_bytes_ = 0, attention_weight_bytes_ = 0, kv_bytes_per_sequence_ = 0;
};

}  // namespace tandem
