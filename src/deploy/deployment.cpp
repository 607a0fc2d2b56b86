// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "deploy/deployment.h"

#include <algorithm>

#include "base/error.h"
#include "base/format.h"
#include "base/read_file.h"
#include "base/settings_table.h"
#include "base/toml.h"

namespace tandem {

namespace {

constexpr std::size_t kFileBytesMax = 4 << 20;
constexpr std::int64_t kTokensMax = std::int64_t{1} << 40;
constexpr std::size_t kTextMax = 1024;  // of a name, a host or a path
constexpr std::size_t kDevicesMax = 64;

std::string checked(SettingsTable& table, const std::string& key, std::string text) {
  if (text.size() > kTextMax) table.refuse(key, format("has {} letters, limit is {}", text.size(), kTextMax));
  for (const char c : text)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) table.refuse(key, "has control characters");
  return text;
}

std::string text_of(SettingsTable& table, const std::string& key) {
  return checked(table, key, table.text(key));
}

std::string text_or_none(SettingsTable& table, const std::string& key) {
  return checked(table, key, table.text_or(key, ""));
}

std::int32_t read_port(SettingsTable& table) {
  return static_cast<std::int32_t>(table.integer("port", 1, 65535));
}

WorkerPlace read_worker(SettingsTable& table, bool ffn) {
  WorkerPlace w;
  w.rank = static_cast<std::int32_t>(table.integer("rank", 0, kDeploymentWorkersMax - 1));
  w.host = text_of(table, "host");
  w.port = read_port(table);
  if (table.has("devices"))
    for (const std::int64_t device : table.integers("devices", 0, 1023))
      w.devices.push_back(static_cast<std::int32_t>(device));
  if (table.has("network_devices")) w.network_devices = table.texts("network_devices");
  if (w.devices.size() > kDevicesMax || w.network_devices.size() > kDevicesMax)
    table.refuse("devices", format("and network_devices have a limit of {}", kDevicesMax));
  for (const std::string& device : w.network_devices) checked(table, "network_devices", device);
  if (ffn) w.replica_of = static_cast<std::int32_t>(table.integer_or("replica_of", -1, 0, kDeploymentWorkersMax - 1));
  table.finish();
  return w;
}

DeploymentEngine read_engine(SettingsTable table) {
  DeploymentEngine e;
  e.device = table.word_or("device", e.device, {"cpu", "cuda", "reference"});
  e.kv_dtype = table.word_or("kv_dtype", e.kv_dtype, {"f32", "bf16", "fp8"});
  e.activations = table.word_or("activations", e.activations, {"f32", "fp8", "int8"});
  e.micro_batches = static_cast<std::int32_t>(table.integer_or("micro_batches", e.micro_batches, 1, 16));
  e.rows_per_micro_batch_max =
      table.integer_or("rows_per_micro_batch_max", e.rows_per_micro_batch_max, 1, std::int64_t{1} << 20);
  e.sequences_max = table.integer_or("sequences_max", e.sequences_max, 1, std::int64_t{1} << 20);
  e.context_tokens_max = table.integer_or("context_tokens_max", 0, 0, std::int64_t{1} << 30);
  e.kv_tokens = table.integer_or("kv_tokens", 0, 0, kTokensMax);
  table.finish();
  return e;
}

DeploymentLink read_link(SettingsTable table) {
  constexpr std::int64_t kHour = 3'600'000;
  DeploymentLink l;
  l.transport = table.word_or("transport", l.transport, {"ucx", "inproc"});
  l.encrypt = table.boolean_or("encrypt", l.encrypt);
  l.heartbeat_ms = table.integer_or("heartbeat_ms", l.heartbeat_ms, 1, kHour);
  l.lost_after_ms = table.integer_or("lost_after_ms", l.lost_after_ms, 1, kHour);
  l.repair_ms_max = table.integer_or("repair_ms_max", l.repair_ms_max, 0, kHour);
  l.slow_factor = static_cast<std::int32_t>(table.integer_or("slow_factor", l.slow_factor, 0, 1000));
  l.replace_slow = table.boolean_or("replace_slow", l.replace_slow);
  l.ucx_transports = text_or_none(table, "ucx_transports");
  table.finish();
  return l;
}

DeploymentTrust read_trust(SettingsTable table) {
  DeploymentTrust t{.secret_file = text_or_none(table, "secret_file"),
                    .certificate_file = text_or_none(table, "certificate_file"),
                    .key_file = text_or_none(table, "key_file"),
                    .authority_file = text_or_none(table, "authority_file"),
                    .insecure = table.boolean_or("insecure", false)};
  table.finish();
  return t;
}

FfnSplit read_split(SettingsTable table) {
  FfnSplit s;
  s.experts = static_cast<std::int32_t>(table.integer_or("experts", 1, 1, kDeploymentWorkersMax));
  s.width = static_cast<std::int32_t>(table.integer_or("width", 1, 1, 8));
  table.finish();
  return s;
}

DeploymentFront read_front(SettingsTable table) {
  DeploymentFront f{.host = text_of(table, "host"),
                    .port = read_port(table),
                    .control_port = static_cast<std::int32_t>(table.integer_or("control_port", 0, 1, 65535))};
  table.finish();
  return f;
}

DeploymentPlanned read_planned(SettingsTable table) {
  DeploymentPlanned p{.model = text_of(table, "model"),
                      .attention_hardware = text_of(table, "attention_hardware"),
                      .ffn_hardware = text_of(table, "ffn_hardware"),
                      .context = table.integer("context", 1, std::int64_t{1} << 30),
                      .tpot_ms = table.number("tpot_ms", 0.01, 3.6e6)};
  table.finish();
  return p;
}

void read_workers(SettingsTable& file, const std::string& key, bool ffn, std::vector<WorkerPlace>& out) {
  for (SettingsTable& worker : file.tables(key)) out.push_back(read_worker(worker, ffn));
}

}  // namespace

std::int32_t Deployment::primaries() const {
  return static_cast<std::int32_t>(std::ranges::count(ffn, -1, &WorkerPlace::replica_of));
}

const WorkerPlace* Deployment::find(std::int32_t rank) const {
  for (const std::vector<WorkerPlace>* list : {&attention, &ffn})
    if (const auto found = std::ranges::find(*list, rank, &WorkerPlace::rank); found != list->end()) return &*found;
  return nullptr;
}

FfnShare share_of(const Deployment& d, const WorkerPlace& ffn, std::int32_t experts) {
  return ffn_share(ffn.seat() - static_cast<std::int32_t>(d.attention.size()), d.split, experts);
}

Deployment parse_deployment(std::string_view toml, const std::string& what, const DeploymentAdditions& additions) {
  const Json json = parse_toml(toml, what, {.bytes_max = kFileBytesMax});
  SettingsTable file(json, what);
  file.integer("version", 1, 1);
  Deployment d{.name = text_of(file, "name"), .model = text_of(file, "model")};
  const Json none = Json::object();
  const auto section = [&](const char* key) { return file.table_or(key, none); };
  d.engine = read_engine(section("engine"));
  d.split = read_split(section("split"));
  d.link = read_link(section("link"));
  d.trust = read_trust(section("trust"));
  if (file.has("front")) d.front = read_front(file.table("front"));
  if (file.has("planned")) d.planned = read_planned(file.table("planned"));
  read_workers(file, "attention", false, d.attention);
  read_workers(file, "ffn", true, d.ffn);
  file.table_or("front", none);
  file.table_or("planned", none);
  file.finish();
  d.link.encrypt = d.link.encrypt || additions.encrypt;
  d.trust.insecure = d.trust.insecure || (additions.insecure && !d.trust.given());
  const std::vector<std::string> faults = find_faults(d);
  if (!faults.empty()) throw Error(ErrorCode::kInvalidData, format("{}: {}", what, join(faults, "; ")));
  return d;
}

Deployment read_deployment(const std::string& path, const DeploymentAdditions& additions) {
  return parse_deployment(read_file_start(path, kFileBytesMax), path, additions);
}

}  // namespace tandem
