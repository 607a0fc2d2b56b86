// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The deployment file: which workers there are, where each runs, what it holds and whom it trusts. Every role reads the
// same file and a rank; the planner writes it. TOML, strict: an unknown key is an error that names the nearest known
// one.
//
// docs/planning.md lists the keys. Each worker has a rank: attention workers first, 0 … A-1, then FFN workers, replicas
// last. Those that are no replicas are also the seats of a step, which the transport knows by that number; of an FFN
// worker and its replicas one has the seat at a time. Secrets are never in the file, only paths to them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/share.h"

namespace tandem {

inline constexpr std::int32_t kDeploymentWorkersMax = 4096;  // of all kinds together

// One attention or FFN worker.
struct WorkerPlace {
  std::int32_t rank = 0;
  std::string host;
  std::int32_t port = 0;                          // of its control connection
  std::vector<std::int32_t> devices;              // accelerators of the host; none: the CPU
  std::vector<std::string> network_devices = {};  // rails, as the transport calls them; none: it chooses
  std::int32_t replica_of = -1;                   // FFN: the rank whose share it holds too; -1: none

  std::int32_t seat() const { return replica_of >= 0 ? replica_of : rank; }
  bool operator==(const WorkerPlace&) const = default;
};

struct DeploymentEngine {
  std::string device = "cuda";      // cpu, cuda, reference
  std::string kv_dtype = "bf16";    // f32, bf16, fp8
  std::string activations = "f32";  // f32, fp8, int8
  std::int32_t micro_batches = 3;
  std::int64_t rows_per_micro_batch_max = 256;  // of one attention worker
  std::int64_t sequences_max = 64;              // of one attention worker
  std::int64_t context_tokens_max = 0;          // 0: as the model has
  std::int64_t kv_tokens = 0;                   // of one attention worker; 0: as its memory has

  bool operator==(const DeploymentEngine&) const = default;
};

struct DeploymentLink {
  std::string transport = "ucx";  // ucx, inproc
  bool encrypt = false;           // seal frames, for networks that are not private
  std::int64_t heartbeat_ms = 500;
  std::int64_t lost_after_ms = 5'000;   // without a heartbeat
  std::int64_t repair_ms_max = 60'000;  // that streams wait for a lost worker's return before they end
  std::int32_t slow_factor = 5;         // times as slow as others: slow, and named (roles/straggler_watch.h); 0: never
  bool replace_slow = false;            // an FFN worker that is slow gives its seat to a replica that stands by
  // In UCX's words (UCX_TLS): "tcp", "posix,self", "rc"; empty: shared memory where all workers are on this machine,
  // else what UCX chooses.
  std::string ucx_transports = {};

  bool operator==(const DeploymentLink&) const = default;
};

// Either a secret that all share, or certificates (trust/credentials.h); or insecure, which only loopback is without
// saying. Paths are those of each host.
struct DeploymentTrust {
  std::string secret_file;
  std::string certificate_file, key_file, authority_file;
  bool insecure = false;

  bool operator==(const DeploymentTrust&) const = default;
  bool given() const { return !secret_file.empty() || !certificate_file.empty(); }
};

struct DeploymentFront {
  std::string host = "127.0.0.1";
  std::int32_t port = 8000;
  std::int32_t control_port = 0;  // for tandem ctl; 0: it takes no orders

  bool operator==(const DeploymentFront&) const = default;
};

// What the planner stood on, so that a plan can be checked again.
struct DeploymentPlanned {
  std::string model;  // as `tandem plan --model` takes it
  std::string attention_hardware, ffn_hardware;
  std::int64_t context = 0;  // average, of a decoding sequence
  double tpot_ms = 0;

  bool operator==(const DeploymentPlanned&) const = default;
};

struct Deployment {
  std::string name;   // peers of another deployment are refused
  std::string model;  // a checkpoint, as each host sees it
  DeploymentEngine engine;
  FfnSplit split;
  DeploymentLink link;
  DeploymentTrust trust;
  DeploymentFront front;
  std::vector<WorkerPlace> attention, ffn;
  std::optional<DeploymentPlanned> planned;

  bool operator==(const Deployment&) const = default;
  std::int32_t primaries() const;  // FFN workers that are no replicas
  std::int32_t seats() const { return static_cast<std::int32_t>(attention.size()) + primaries(); }
  const WorkerPlace* find(std::int32_t rank) const;  // null: there is none
};

// What an FFN worker holds of a model with so many experts (0: dense).
FfnShare share_of(const Deployment& deployment, const WorkerPlace& ffn, std::int32_t experts);

// What a command line adds to a file.
struct DeploymentAdditions {
  bool insecure = false;  // as trust.insecure, where there is no trust
  bool encrypt = false;   // as link.encrypt
};

// Reads and checks. what names the source in messages. Throws Error{kInvalidData}: for bytes that are no such file the
// first thing that is wrong, else everything that find_faults finds.
Deployment parse_deployment(std::string_view toml, const std::string& what, const DeploymentAdditions& additions = {});
// Throws Error{kNotFound} for a file that cannot be read, and as above.
Deployment read_deployment(const std::string& path, const DeploymentAdditions& additions = {});

// An address of this machine alone: localhost, ::1 (also in brackets), or 127.x.y.z in four decimal octets.
bool is_loopback(std::string_view host);

// What does not go together, a sentence each; empty: nothing.
std::vector<std::string> find_faults(const Deployment& deployment);

// With a comment for each section; parse_deployment gives the same deployment back.
std::string to_toml(const Deployment& deployment);

}  // namespace tandem
