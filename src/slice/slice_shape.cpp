// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "slice/slice_shape.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <numeric>
#include <random>

#include "base/error.h"
#include "base/format.h"

namespace tandem {

bool SliceModel::is_dense(std::int32_t layer) const {
  return layer < 4 || layer == layers - 1;
}

std::int32_t SliceModel::dense_layers() const {
  std::int32_t count = 0;
  for (std::int32_t layer = 0; layer < layers; ++layer) count += is_dense(layer) ? 1 : 0;
  return count;
}

SliceDeployment SliceDeployment::parse(const std::string& text) {
  SliceDeployment d;
  if (text == "ep16" || text == "ep24") {
    d.attention_servers = d.ffn_servers = 1;
    d.expert_parallel_gpus = text == "ep16" ? 16 : 24;
    return d;
  }
  const char *at = text.data(), *end = text.data() + text.size();
  const auto number = [&](std::int32_t& value, char unit) {
    const auto [next, error] = std::from_chars(at, end, value);
    if (error != std::errc{} || next == end || *next != unit || value < 1 || value > 64)
      throw Error(
          ErrorCode::kInvalidArgument,
          format("deployment '{}': wanted servers of each side such as 2A2F, each 1 to 64, or ep16 or ep24", text));
    at = next + 1;
  };
  number(d.attention_servers, 'A');
  number(d.ffn_servers, 'F');
  if (at != end)
    throw Error(ErrorCode::kInvalidArgument, format("deployment '{}': '{}' is too much", text, std::string(at, end)));
  if (SliceModel::kExperts % d.ffn_gpus() != 0)
    throw Error(ErrorCode::kInvalidArgument,
                format("deployment '{}': {} experts cannot be spread evenly over {} FFN GPUs (1, 2, 3 or 6 servers)",
                       text, SliceModel::kExperts, d.ffn_gpus()));
  return d;
}

std::string SliceDeployment::to_string() const {
  if (!disaggregated()) return format("ep{}", expert_parallel_gpus);
  return format("{}A{}F", attention_servers, ffn_servers);
}

std::string SliceDeployment::experts_text() const {
  return width_is_cut ? format("ep{}tp{}", ffn_servers, kGpusPerServer) : format("ep{}", ffn_gpus());
}

std::int32_t SliceDeployment::experts_of_gpu() const {
  return SliceModel::kExperts / (width_is_cut ? ffn_servers : ffn_gpus());
}

SliceLoad load_of(const SliceDeployment& d, std::int32_t rows) {
  SliceLoad load;
  load.rows = rows;
  load.rail_blocks = d.width_is_cut ? d.attention_gpus() : d.attention_servers;
  load.own_blocks = d.attention_servers;
  load.tokens = rows * d.attention_gpus();
  load.experts = d.experts_of_gpu();
  load.width_parts = d.width_parts();
  load.server_experts = SliceModel::kExperts / d.ffn_servers;
  load.shared_rows = (rows + d.ffn_servers - 1) / d.ffn_servers;
  load.expert_rows_mean = load.tokens * SliceModel::kTopK / SliceModel::kExperts;
  const std::int64_t expert_rows = std::int64_t{load.expert_rows_mean} * load.experts;
  const std::int32_t exchanging = d.disaggregated() ? SliceDeployment::kGpusPerServer : d.gpus();
  if (!d.width_is_cut) load.arrived_rows = static_cast<std::int32_t>(expert_rows * (exchanging - 1) / exchanging);
  // Its rail's rows to seven neighbours and theirs here; and the sums of as many back.
  load.exchanged_rows = d.width_is_cut ? load.own_blocks * rows * (exchanging - 1) : load.arrived_rows;
  load.exchange_far = static_cast<double>(exchanging - SliceDeployment::kGpusPerServer) / (exchanging - 1);
  // Codes, a scale for each 128 of them, ids and weights; moved 16 bytes at a time.
  load.exchange_out_bytes =
      (load.exchanged_rows * std::int64_t{SliceModel::kHidden + SliceModel::kHidden / 32 + 8 * SliceModel::kTopK} +
       15) /
      16 * 16;
  load.exchange_back_bytes = load.exchanged_rows * std::int64_t{SliceModel::kHidden * 2};
  return load;
}

namespace {

// Three different experts, drawn one after the other with these weights.
void draw(const std::array<double, SliceModel::kExperts>& weight, std::mt19937_64& random, std::int32_t* ids) {
  std::array<double, SliceModel::kExperts> left = weight;
  for (std::int32_t k = 0; k < SliceModel::kTopK; ++k) {
    const double all = std::accumulate(left.begin(), left.end(), 0.);
    double at = std::uniform_real_distribution<double>(0, all)(random);
    std::int32_t id = 0;
    while (id + 1 < SliceModel::kExperts && (at -= left[static_cast<std::size_t>(id)]) >= 0) ++id;
    while (left[static_cast<std::size_t>(id)] == 0) id = (id + 1) % SliceModel::kExperts;
    ids[k] = id;
    left[static_cast<std::size_t>(id)] = 0;
  }
}

}  // namespace

RoutingTable routing_table(const SliceDeployment& d, std::int32_t tokens, double exponent, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::array<double, SliceModel::kExperts> weight{};
  for (std::size_t i = 0; i < weight.size(); ++i) weight[i] = std::pow(static_cast<double>(i + 1), -exponent);
  std::shuffle(weight.begin(), weight.end(), random);
  RoutingTable table;
  table.ids.resize(static_cast<std::size_t>(tokens) * SliceModel::kTopK);
  std::array<std::int32_t, SliceModel::kExperts> count{};
  for (std::int32_t token = 0; token < tokens; ++token) {
    std::int32_t* ids = &table.ids[static_cast<std::size_t>(token) * SliceModel::kTopK];
    draw(weight, random, ids);
    for (std::int32_t k = 0; k < SliceModel::kTopK; ++k) ++count[static_cast<std::size_t>(ids[k])];
  }
  const std::int32_t experts = d.experts_of_gpu();
  std::int32_t most = -1;
  for (std::int32_t first = 0; first < SliceModel::kExperts; first += experts) {
    const auto begin = count.begin() + first;
    const std::int32_t rows = std::accumulate(begin, begin + experts, 0);
    if (rows <= most) continue;
    most = rows;
    table.first = first;
    table.rows_max = *std::max_element(begin, begin + experts);
  }
  return table;
}

}  // namespace tandem
