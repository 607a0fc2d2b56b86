// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "plan/planned_deployment.h"

#include <algorithm>
#include <cctype>
#include <set>

#include "base/error.h"
#include "base/format.h"
#include "ops/kv_cache.h"
#include "plan/deployment_report.h"

namespace tandem {

namespace {

std::string host_of(const std::vector<std::string>& hosts, const char* prefix, std::int32_t server) {
  return hosts.empty() ? format("{}-{}", prefix, server) : hosts[static_cast<std::size_t>(server)];
}

void check_hosts(const std::vector<std::string>& hosts, std::int32_t servers, const char* what) {
  if (!hosts.empty() && hosts.size() != static_cast<std::size_t>(servers))
    throw Error(ErrorCode::kInvalidArgument,
                format("{} {} hosts are named, the plan has {} servers", hosts.size(), what, servers));
}

std::string plain_name(const std::string& text) {
  std::string out;
  for (const char c : text)
    out += std::isalnum(static_cast<unsigned char>(c)) ? static_cast<char>(std::tolower(c)) : '-';
  return out;
}

// One worker for each GPU of each server.
void place(std::vector<WorkerPlace>& out, std::int32_t& rank, std::int32_t servers, std::int32_t gpus,
           const std::vector<std::string>& hosts, const char* prefix, std::int32_t first_port) {
  for (std::int32_t server = 0; server < servers; ++server)
    for (std::int32_t gpu = 0; gpu < gpus; ++gpu)
      out.push_back(
          {.rank = rank++, .host = host_of(hosts, prefix, server), .port = first_port + gpu, .devices = {gpu}});
}

// The hosts of workers, as the model's servers: as many GPUs each as the fullest has.
std::int32_t servers_of(const std::vector<WorkerPlace>& workers, Hardware& hardware) {
  std::set<std::string> hosts;
  std::int32_t count = 0;
  for (const WorkerPlace& w : workers) {
    if (w.replica_of >= 0) continue;
    hosts.insert(w.host);
    ++count;
  }
  const auto servers = static_cast<std::int32_t>(hosts.size());
  hardware.gpus_per_server = (count + servers - 1) / servers;
  return servers;
}

}  // namespace

Deployment make_deployment(const DecodeModel& model, const DeploymentPlan& plan, const DeploymentPlanned& planned,
                           const PlacementOptions& options) {
  const Candidate& c = plan.candidate;
  const DecodeSettings& s = model.settings();
  check_hosts(options.attention_hosts, c.attention_servers, "attention");
  check_hosts(options.ffn_hosts, c.ffn_servers, "FFN");
  Deployment d;
  d.name = options.name.empty() ? plain_name(format("{}-{}", model.shape().name, layout_text(c))) : options.name;
  d.model = options.checkpoint;
  d.engine = {.device = "cuda",
              .kv_dtype = s.precision.kv == DType::kF8E4M3 ? "fp8" : "bf16",
              .activations = "fp8",
              .micro_batches = c.micro_batches,
              .rows_per_micro_batch_max = plan.rows,
              .sequences_max = plan.sequences_per_gpu(),
              .context_tokens_max = 0,
              .kv_tokens = 0};
  // Each sequence ends in a block that it does not fill.
  const std::int64_t blocks = (s.context + kBlockTokens - 1) / kBlockTokens;
  d.engine.kv_tokens = plan.sequences_per_gpu() * blocks * kBlockTokens;
  d.split = {model.expert_parallel(c), c.tensor_parallel};
  d.trust.secret_file = options.secret_file;
  std::int32_t rank = 0;
  place(d.attention, rank, c.attention_servers, s.attention.gpus_per_server, options.attention_hosts, "attention",
        options.first_port);
  place(d.ffn, rank, c.ffn_servers, s.ffn.gpus_per_server, options.ffn_hosts, "ffn", options.first_port);
  d.planned = planned;
  return d;
}

DeploymentVerdict check_planned(const Deployment& d) {
  DeploymentVerdict verdict;
  const std::vector<std::string> faults = find_faults(d);
  if (!d.planned || !faults.empty()) return {{}, faults};
  DecodeSettings s{.context = d.planned->context,
                   .precision = {},
                   .attention = find_hardware(d.planned->attention_hardware),
                   .ffn = find_hardware(d.planned->ffn_hardware),
                   .efficiency = {}};
  s.precision.kv = d.engine.kv_dtype == "fp8"   ? DType::kF8E4M3
                   : d.engine.kv_dtype == "f32" ? DType::kF32
                                                : DType::kBF16;
  Candidate c{.attention_servers = servers_of(d.attention, s.attention),
              .ffn_servers = servers_of(d.ffn, s.ffn),
              .micro_batches = d.engine.micro_batches,
              .tensor_parallel = d.split.width};
  const DecodeModel model(find_shape(d.planned->model), s);
  const auto need = [&](bool holds, std::string fact) {
    (holds ? verdict.facts : verdict.faults).push_back(std::move(fact));
  };
  if (!model.fits_model(c)) {
    need(false, format("{} has {} experts, {} wide in blocks of {}: its FFN cannot be {} groups by {} parts",
                       model.shape().name, model.shape().experts(), model.shape().expert_width(), model.width_block(),
                       d.split.experts, d.split.width));
    return verdict;
  }
  const double ffn = model.ffn_weight_bytes(c), ffn_room = model.usable_bytes(s.ffn);
  need(ffn <= ffn_room,
       format("an FFN worker's weights take {:.1f} GB of {:.1f} GB to use", ffn * 1e-9, ffn_room * 1e-9));
  const double token = model.kv_bytes_per_sequence() / static_cast<double>(s.context);
  const auto sequences = static_cast<double>(d.engine.sequences_max);
  const double kv_tokens =
      d.engine.kv_tokens > 0 ? static_cast<double>(d.engine.kv_tokens) : sequences * static_cast<double>(s.context);
  const double a = model.attention_weight_bytes() + token * kv_tokens, a_room = model.usable_bytes(s.attention);
  need(a <= a_room, format("an attention worker's weights and KV of {:.0f} tokens take {:.1f} GB of {:.1f} GB to use",
                           kv_tokens, a * 1e-9, a_room * 1e-9));
  const std::int64_t rows =
      std::min(d.engine.rows_per_micro_batch_max, (d.engine.sequences_max + c.micro_batches - 1) / c.micro_batches);
  const DeploymentPlan plan = plan_at(model, c, std::max<std::int64_t>(rows, 1));
  need(plan.tpot * 1e3 <= d.planned->tpot_ms,
       format("{} rows a micro-batch take {:.2f} ms a token on ideal hardware, planned are {:.2f} ms", plan.rows,
              plan.tpot * 1e3, d.planned->tpot_ms));
  return verdict;
}

}  // namespace tandem
