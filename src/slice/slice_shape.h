// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What one attention GPU and one FFN GPU of an xAyF deployment carry: servers of eight GPUs, attention data-parallel,
// 48 routed experts spread over all FFN GPUs, the shared expert and the dense layers by tokens (paper §7.1, §7.3).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tandem {

// Step-3's text model at full size; layers may be fewer for a trial.
struct SliceModel {
  std::int32_t layers = 61;
  static constexpr std::int32_t kHidden = 7168, kQueryRank = 2048, kHeads = 64, kHeadDim = 256;
  static constexpr std::int32_t kExperts = 48, kTopK = 3, kExpertWidth = 5120, kDenseWidth = 18432;
  static constexpr std::int32_t kVocab = 128815;
  static constexpr std::int32_t kVocabPadded = 129024;  // whole tiles of 256

  bool is_dense(std::int32_t layer) const;  // the first four and the last
  std::int32_t dense_layers() const;
};

// What an attention GPU has on its way at once.
struct SliceBatch {
  std::int32_t micro_batches = 0, rows = 0;  // rows: of each
  bool operator==(const SliceBatch&) const = default;
};

struct SliceDeployment {
  std::int32_t attention_servers = 2, ffn_servers = 2;
  // Else: so many GPUs, each with attention for sequences of its own and with whole experts, dense layers and the
  // shared expert for its own tokens; one server of each then.
  std::int32_t expert_parallel_gpus = 0;
  // Of two sides: an FFN server's GPUs have some of its experts each, or an eighth of the width of all of them (and of
  // dense layers and the shared expert). Then each gets all of the server's rows, and their results are added up over
  // it.
  bool width_is_cut = false;
  static constexpr std::int32_t kGpusPerServer = 8;

  // "2A2F", "ep16"; throws Error{kInvalidArgument} for other text, and for GPUs that the experts cannot be spread over.
  static SliceDeployment parse(const std::string& text);
  std::string to_string() const;
  bool disaggregated() const { return expert_parallel_gpus == 0; }
  // How the experts lie, as it is usually written: "ep16" whole ones, "ep2tp8" cut.
  std::string experts_text() const;
  std::int32_t width_parts() const { return width_is_cut ? kGpusPerServer : 1; }
  std::int32_t experts_of_gpu() const;  // routed
  std::int32_t attention_gpus() const {
    return disaggregated() ? attention_servers * kGpusPerServer : expert_parallel_gpus;
  }
  std::int32_t ffn_gpus() const { return disaggregated() ? ffn_servers * kGpusPerServer : expert_parallel_gpus; }
  std::int32_t gpus() const { return disaggregated() ? attention_gpus() + ffn_gpus() : expert_parallel_gpus; }
};

struct SliceLoad {
  std::int32_t rows = 0;         // of a micro-batch on an attention GPU
  std::int32_t rail_blocks = 0;  // attention GPUs whose rows an FFN GPU has in full: its rail's, or the server's
  std::int32_t own_blocks = 0;   // those of its rail, to which it returns
  std::int32_t tokens = 0;       // of a micro-batch, that an FFN server receives
  std::int32_t experts = 0;      // routed, on an FFN GPU
  std::int32_t server_experts = 0;
  std::int32_t shared_rows = 0;  // of each of them, of the shared expert and the dense layers, here
  std::int32_t width_parts = 1;  // of which one is here
  std::int32_t expert_rows_mean = 0;
  std::int32_t arrived_rows = 0;         // a GPU with whole experts gets from its neighbours for them, on average
  std::int32_t exchanged_rows = 0;       // that come in and go out, whichever way experts lie
  std::int64_t exchange_out_bytes = 0;   // of rows to the neighbours, before the products; as many come in
  std::int64_t exchange_back_bytes = 0;  // of results, after them
  // Of both: the share that goes to other servers. Within an FFN server none does; where every GPU has experts, all are
  // neighbours.
  double exchange_far = 0;
};
SliceLoad load_of(const SliceDeployment& deployment, std::int32_t rows);

// Who goes where, for tokens that are not the slice's own: ids [tokens, 3] for each layer and micro-batch. Made so that
// this FFN GPU's experts, first … first + experts - 1, are those of the GPU that has most to do in that layer: all
// others wait for it.
struct RoutingTable {
  std::vector<std::int32_t> ids;  // [tokens, kTopK]
  std::int32_t first = 0;         // expert of this GPU
  std::int32_t rows_max = 0;      // of one of its experts
};
// exponent: of zipf; 0: uniform.
RoutingTable routing_table(const SliceDeployment& deployment, std::int32_t tokens, double exponent, std::uint64_t seed);

}  // namespace tandem
