// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Writing a deployment the way a person would want to change it.
#include "base/format.h"
#include "base/toml.h"
#include "deploy/deployment.h"

namespace tandem {

namespace {

void write_worker(std::string& out, const char* kind, const WorkerPlace& w) {
  out += format("\n[[{}]]\nrank = {}\nhost = {}\nport = {}\n", kind, w.rank, toml_quoted(w.host), w.port);
  if (!w.devices.empty()) out += format("devices = [{}]\n", join(w.devices, ", "));
  if (!w.network_devices.empty()) {
    std::vector<std::string> quoted;
    quoted.reserve(w.network_devices.size());
    for (const std::string& device : w.network_devices) quoted.push_back(toml_quoted(device));
    out += format("network_devices = [{}]\n", join(quoted, ", "));
  }
  if (w.replica_of >= 0) out += format("replica_of = {}\n", w.replica_of);
}

std::string engine_toml(const DeploymentEngine& e) {
  return format(
      "\n[engine]  # of every worker; the limits are of one attention worker\ndevice = {}\nkv_dtype = {}\nactivations "
      "= "
      "{}\nmicro_batches = {}\nrows_per_micro_batch_max = {}\nsequences_max = {}\ncontext_tokens_max = {}  # 0: as the "
      "model has\nkv_tokens = {}  # 0: as the memory has\n",
      toml_quoted(e.device), toml_quoted(e.kv_dtype), toml_quoted(e.activations), e.micro_batches,
      e.rows_per_micro_batch_max, e.sequences_max, e.context_tokens_max, e.kv_tokens);
}

std::string trust_toml(const DeploymentTrust& t) {
  std::string out = "\n[trust]  # paths; secrets themselves are never in this file\n";
  const auto path = [&](const char* key, const std::string& value) {
    if (!value.empty()) out += format("{} = {}\n", key, toml_quoted(value));
  };
  path("secret_file", t.secret_file);
  path("certificate_file", t.certificate_file);
  path("key_file", t.key_file);
  path("authority_file", t.authority_file);
  if (t.insecure) out += "insecure = true\n";
  return out;
}

// Enough digits to come back, and a point, since TOML tells 50 from 50.0 and both are numbers here.
std::string number(double value) {
  return format("{}", value);
}

}  // namespace

std::string to_toml(const Deployment& d) {
  std::string out =
      format("version = 1\nname = {}\nmodel = {}  # as each host sees it\n", toml_quoted(d.name), toml_quoted(d.model));
  out += engine_toml(d.engine);
  out += format(
      "\n[split]  # of a layer's FFN: groups of whole experts, and parts of their width in each group\nexperts = "
      "{}\nwidth = {}\n",
      d.split.experts, d.split.width);
  out += format(
      "\n[link]\ntransport = {}\nencrypt = {}\nheartbeat_ms = {}\nlost_after_ms = {}\nrepair_ms_max = {}  # that "
      "streams "
      "wait for a lost worker\nslow_factor = {}  # times as slow as others\nreplace_slow = {}\n",
      toml_quoted(d.link.transport), d.link.encrypt, d.link.heartbeat_ms, d.link.lost_after_ms, d.link.repair_ms_max,
      d.link.slow_factor, d.link.replace_slow);
  if (!d.link.ucx_transports.empty()) out += format("ucx_transports = {}\n", toml_quoted(d.link.ucx_transports));
  out += trust_toml(d.trust);
  out += format("\n[front]\nhost = {}\nport = {}\n", toml_quoted(d.front.host), d.front.port);
  if (d.front.control_port > 0) out += format("control_port = {}\n", d.front.control_port);
  if (d.planned)
    out += format(
        "\n[planned]  # what the plan stood on; tandem plan check reckons it again\nmodel = {}\nattention_hardware = "
        "{}\nffn_hardware = {}\ncontext = {}\ntpot_ms = {}\n",
        toml_quoted(d.planned->model), toml_quoted(d.planned->attention_hardware), toml_quoted(d.planned->ffn_hardware),
        d.planned->context, number(d.planned->tpot_ms));
  for (const WorkerPlace& w : d.attention) write_worker(out, "attention", w);
  for (const WorkerPlace& w : d.ffn) write_worker(out, "ffn", w);
  return out;
}

}  // namespace tandem
