// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What of a deployment does not go together.
#include <algorithm>
#include <charconv>
#include <map>
#include <set>

#include "base/format.h"
#include "deploy/deployment.h"

namespace tandem {

namespace {

constexpr std::size_t kFaultsMax = 20;  // more are rarely about anything else

class Checker {
 public:
  explicit Checker(const Deployment& deployment) : d_(deployment) {}

  std::vector<std::string> check() {
    check_ranks();
    check_split();
    check_replicas();
    check_places();
    check_trust();
    check_engine();
    if (faults_.size() > kFaultsMax) {
      const std::size_t more = faults_.size() - kFaultsMax;
      faults_.resize(kFaultsMax);
      faults_.push_back(format("and {} more", more));
    }
    return std::move(faults_);
  }

 private:
  void add(std::string fault) { faults_.push_back(std::move(fault)); }

  // The first worker that is not on this machine; null: all are.
  const WorkerPlace* first_elsewhere() const {
    for (const std::vector<WorkerPlace>* list : {&d_.attention, &d_.ffn})
      for (const WorkerPlace& w : *list)
        if (!is_loopback(w.host)) return &w;
    return nullptr;
  }

  void check_ranks() {
    if (d_.attention.empty()) add("there is no attention worker ([[attention]])");
    if (d_.primaries() == 0) add("there is no FFN worker ([[ffn]])");
    if (d_.attention.size() + d_.ffn.size() > static_cast<std::size_t>(kDeploymentWorkersMax))
      add(format("there are {} workers, limit is {}", d_.attention.size() + d_.ffn.size(), kDeploymentWorkersMax));
    std::int32_t next = 0;
    const auto count = [&](const char* kind, const WorkerPlace& w) {
      if (w.rank != next)
        add(format("{} worker on {}:{} has rank {}, expected {}", kind, w.host, w.port, w.rank, next));
      ++next;
    };
    for (const WorkerPlace& w : d_.attention) count("attention", w);
    for (const bool replicas : {false, true})
      for (const WorkerPlace& w : d_.ffn)
        if ((w.replica_of >= 0) == replicas) count(replicas ? "replica FFN" : "FFN", w);
  }

  void check_split() {
    const FfnSplit& s = d_.split;
    if ((s.width & (s.width - 1)) != 0) add(format("split.width is {}, has to be 1, 2, 4 or 8", s.width));
    if (const std::int64_t wanted = std::int64_t{s.experts} * s.width; d_.primaries() != wanted)
      add(format(
          "split is {} groups of experts by {} parts of their width, which is {} FFN workers; there are {} without "
          "replicas",
          s.experts, s.width, wanted, d_.primaries()));
  }

  void check_replicas() {
    for (const WorkerPlace& w : d_.ffn) {
      if (w.replica_of < 0) continue;
      const WorkerPlace* of = d_.find(w.replica_of);
      const bool primary = of && of->replica_of < 0 && of->rank >= static_cast<std::int32_t>(d_.attention.size());
      if (!primary)
        add(format("FFN worker {} is a replica of {}, which is no FFN worker of its own", w.rank, w.replica_of));
    }
  }

  void check_places() {
    std::map<std::pair<std::string, std::int32_t>, std::string> ports, devices;
    const auto take = [&](auto& taken, const std::string& host, std::int32_t number, const char* what,
                          const std::string& who) {
      const auto [place, fresh] = taken.try_emplace({host, number}, who);
      if (!fresh) add(format("{} and {} both have {} {} of {}", place->second, who, what, number, host));
    };
    take(ports, d_.front.host, d_.front.port, "port", "the front");
    if (d_.front.control_port > 0) take(ports, d_.front.host, d_.front.control_port, "port", "the front's control");
    for (const std::vector<WorkerPlace>* list : {&d_.attention, &d_.ffn}) {
      for (const WorkerPlace& w : *list) {
        const std::string who = format("rank {}", w.rank);
        take(ports, w.host, w.port, "port", who);
        for (const std::int32_t device : w.devices) take(devices, w.host, device, "device", who);
        if (d_.engine.device == "cuda" && w.devices.empty())
          add(format("{} has no devices, and engine.device is cuda", who));
        if (d_.engine.device != "cuda" && !w.devices.empty())
          add(format("{} has devices, and engine.device is {}", who, d_.engine.device));
      }
    }
  }

  void check_trust() {
    const DeploymentTrust& t = d_.trust;
    const int certificates =
        int{!t.certificate_file.empty()} + int{!t.key_file.empty()} + int{!t.authority_file.empty()};
    if (certificates % 3 != 0) add("trust needs certificate_file, key_file and authority_file together");
    if (certificates > 0 && !t.secret_file.empty()) add("trust has a secret_file and certificates; one is enough");
    const bool trusted = t.given();
    if (trusted && t.insecure) add("trust has insecure = true beside a secret_file or certificates");
    if (d_.link.encrypt && !trusted) add("link.encrypt needs trust.secret_file or certificates");
    if (trusted || t.insecure) return;
    if (d_.front.control_port > 0 && !is_loopback(d_.front.host))
      add(format(
          "front.control_port is on {}, which is not this machine alone: trust needs secret_file or certificates, "
          "or insecure = true",
          d_.front.host));
    if (const WorkerPlace* w = first_elsewhere())
      add(
          format("rank {} is on {}, which is not this machine: trust needs secret_file or certificates, or "
                 "insecure = true",
                 w->rank, w->host));
  }

  void check_engine() {
    const DeploymentEngine& e = d_.engine;
    if (d_.link.lost_after_ms <= d_.link.heartbeat_ms)
      add(format("link.lost_after_ms is {}, has to be more than heartbeat_ms, {}", d_.link.lost_after_ms,
                 d_.link.heartbeat_ms));
    if (e.device != "cuda" && e.kv_dtype == "fp8")
      add(format("engine.kv_dtype is fp8, which {} does not have", e.device));
    if (e.kv_tokens > 0 && e.context_tokens_max > e.kv_tokens)
      add(format("engine.context_tokens_max is {}, more than kv_tokens, {}", e.context_tokens_max, e.kv_tokens));
    if (const WorkerPlace* w = first_elsewhere(); w && d_.link.transport == "inproc")
      add(format("link.transport is inproc, and rank {} is on {}", w->rank, w->host));
  }

  const Deployment& d_;
  std::vector<std::string> faults_;
};

}  // namespace

// A name that begins with 127. may be anybody's: only four decimal octets are an address.
bool is_loopback(std::string_view host) {
  if (host == "localhost" || host == "::1" || host == "[::1]") return true;
  constexpr std::string_view kNetwork = "127.";
  if (!host.starts_with(kNetwork)) return false;
  const char *at = host.data() + kNetwork.size(), *end = host.data() + host.size();
  for (int octet = 1; octet < 4; ++octet) {
    int value = -1;
    const auto [next, failure] = std::from_chars(at, end, value);
    const bool leading_zero = next - at > 1 && *at == '0';
    if (failure != std::errc() || value < 0 || value > 255 || leading_zero) return false;
    if (octet == 3) return next == end;
    if (next == end || *next != '.') return false;
    at = next + 1;
  }
  return false;
}

std::vector<std::string> find_faults(const Deployment& deployment) {
  return Checker(deployment).check();
}

}  // namespace tandem
