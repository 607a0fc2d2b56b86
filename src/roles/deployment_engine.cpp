// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "roles/deployment_engine.h"

#include <algorithm>
#include <span>
#include <string_view>

#include "base/format.h"
#include "checkpoint/checkpoint.h"
#include "engine/hand_over/hand_over_frame.h"
#include "engine/settings/machine.h"
#include "transport/frame.h"
#include "trust/frame_cipher.h"

namespace tandem {
namespace {

constexpr std::size_t kSampledTensorsMax = 64;
constexpr std::size_t kSampledBytes = 256;
constexpr std::int32_t kSendsMax = 32;  // a queue of UCX's shared memory has 64 places

template <class Each>
void each_worker(const Deployment& d, Each each) {
  for (const auto* list : {&d.attention, &d.ffn})
    for (const WorkerPlace& worker : *list) each(worker);
}

std::int32_t workers_on(const Deployment& d, const std::string& host) {
  std::int32_t count = 0;
  each_worker(d, [&](const WorkerPlace& w) { count += w.host == host; });
  return count;
}

const WorkerPlace* first_elsewhere(const Deployment& d) {
  const WorkerPlace* found = nullptr;
  each_worker(d, [&](const WorkerPlace& w) {
    if (!found && !is_loopback(w.host)) found = &w;
  });
  return found;
}

std::uint64_t add_text(std::string_view text, std::uint64_t sum) {
  return checksum(std::as_bytes(std::span(text)), sum);
}

// Bytes in the middle of some tensors, spread evenly over the file: other weights in the same shapes differ there.
std::uint64_t add_samples(const Checkpoint& checkpoint, std::uint64_t sum) {
  const auto& tensors = checkpoint.tensors();
  const std::size_t stride = std::max<std::size_t>(1, tensors.size() / kSampledTensorsMax);
  for (std::size_t i = 0; i < tensors.size(); i += stride) {
    if (!tensors[i].dtype) continue;
    const std::span<const std::byte> bytes = checkpoint.data(tensors[i]);
    const std::size_t count = std::min(bytes.size(), kSampledBytes);
    sum = checksum(bytes.subspan((bytes.size() - count) / 2, count), sum);
  }
  return sum;
}

std::uint64_t fingerprint(const Checkpoint& checkpoint) {
  std::uint64_t sum = add_text(checkpoint.config().dump(-1, ' ', true, Json::error_handler_t::replace), 0);
  for (const TensorInfo& tensor : checkpoint.tensors())
    sum = add_text(format("{} {} {}", tensor.name, tensor.type_name, tensor.bytes), sum);
  return add_samples(checkpoint, sum);
}

}  // namespace

void check_supported(const Deployment& d, bool insecure) {
  const auto refuse = [&](const std::string& what) {
    throw Error(ErrorCode::kUnsupported, format("deployment {}: {}", d.name, what));
  };
  if (d.link.transport != "ucx")
    refuse(format("link.transport is {}, processes need ucx (tandem serve --layout runs workers as threads)",
                  d.link.transport));
  if (layout_of(d).attention_workers > kWorkersMax || layout_of(d).ffn_workers > kWorkersMax)
    refuse(format("{} workers, limit is {} of each kind", to_string(layout_of(d)), kWorkersMax));
  each_worker(d, [&](const WorkerPlace& w) {
    if (w.devices.size() > 1)
      refuse(format("rank {} has devices {}, a process computes on one", w.rank, join(w.devices, ", ")));
  });
  if (d.trust.given()) return;
  if (d.link.encrypt)
    refuse("link.encrypt (--encrypt) needs trust.secret_file or certificates: keys are agreed on within TLS");
  const WorkerPlace* elsewhere = first_elsewhere(d);
  if (elsewhere && !insecure && !d.trust.insecure)
    throw Error(
        ErrorCode::kPermissionDenied,
        format("deployment {}: rank {} is on {}, and nobody on the way there is kept out: [trust] names neither "
               "secret_file nor certificates (tandem keys makes them; --insecure takes the risk)",
               d.name, elsewhere->rank, elsewhere->host));
}

std::shared_ptr<const Credentials> credentials_of(const Deployment& d) {
  if (!d.trust.given()) return nullptr;
  if (d.trust.secret_file.empty())
    return Credentials::of_certificates(
        {.certificate = d.trust.certificate_file, .key = d.trust.key_file, .authority = d.trust.authority_file});
  SecretKey secret = read_secret(d.trust.secret_file);
  std::shared_ptr<const Credentials> credentials = Credentials::of_secret(secret);
  wipe(secret);
  return credentials;
}

Layout layout_of(const Deployment& d) {
  return {static_cast<std::int32_t>(d.attention.size()), d.primaries(), d.split.width};
}

std::string worker_name(const Deployment& d, std::int32_t rank) {
  const auto attention = static_cast<std::int32_t>(d.attention.size());
  if (rank < attention) return format("A{}", rank);
  const WorkerPlace* place = d.find(rank);
  if (!place || place->replica_of < 0) return format("F{}", rank - attention);
  const auto of_the_same = [&](const WorkerPlace& w) { return w.replica_of == place->replica_of && w.rank <= rank; };
  return format("F{}r{}", place->replica_of - attention, std::ranges::count_if(d.ffn, of_the_same));
}

EngineConfig engine_config(const Deployment& d, std::int32_t rank) {
  EngineConfig c;
  c.layout = layout_of(d);
  c.micro_batches = d.engine.micro_batches;
  c.backend = d.engine.device;
  c.kv_dtype = kv_dtype_named(d.engine.kv_dtype);
  c.activations = activations_named(d.engine.activations);
  c.rows_per_step_max = d.engine.rows_per_micro_batch_max * d.engine.micro_batches;
  c.sequences_max = d.engine.sequences_max;
  c.context_tokens_max = d.engine.context_tokens_max;
  c.kv_tokens = d.engine.kv_tokens;
  c.vision = false;
  const WorkerPlace* self = d.find(rank);
  const std::int32_t here = self ? workers_on(d, self->host) : 0;
  c.threads = c.layout.workers() * std::max(1, usable_cores() / std::max(1, here));
  return c;
}

std::int32_t front_threads(const Deployment& d) {
  return std::max(1, usable_cores() / (1 + workers_on(d, d.front.host)));
}

Identity identity_of(const Deployment& d, const Checkpoint& checkpoint) {
  return {.deployment = d.name,
          .layout = to_string(layout_of(d)),
          .numbers = format("kv {}, activations {}", d.engine.kv_dtype, d.engine.activations),
          .links = d.link.encrypt ? "sealed" : "open",
          .settings = add_text(to_toml(d), 0),
          .model = fingerprint(checkpoint)};
}

std::string difference(const Identity& mine, const Identity& other) {
  const auto differ = [](const char* what, const auto& a, const auto& b) {
    return format("{} is {}, the other has {}", what, a, b);
  };
  if (mine.version != other.version) return differ("version of the control protocol", mine.version, other.version);
  if (mine.deployment != other.deployment) return differ("deployment", mine.deployment, other.deployment);
  if (mine.layout != other.layout) return differ("layout", mine.layout, other.layout);
  if (mine.numbers != other.numbers) return differ("types of numbers", mine.numbers, other.numbers);
  if (mine.links != other.links) return differ("what passes between workers", mine.links, other.links);
  if (mine.model != other.model)
    return format("the model is another: its fingerprint is {:016x}, the other has {:016x}", mine.model, other.model);
  if (mine.settings != other.settings) return "the deployment files differ in what they say";
  return {};
}

UcxConfig ucx_config(const Deployment& d, std::int32_t rank, const EngineConfig& c, const ModelConfig& model) {
  UcxConfig u;
  u.sends_max = kSendsMax;
  const std::int64_t rows = c.rows_per_step_max, k = model.experts_per_token;
  u.message_bytes_max = sizeof(FrameHeader) + std::max(hand_over_bytes(rows, model.hidden, k, c.activations),
                                                       return_bytes(rows * k, rows, model.hidden));
  if (d.link.encrypt) u.message_bytes_max += kSealBytes;
  u.transports = d.link.ucx_transports;
  // Not all of "shm": with UCX 1.13 a process whose peer is killed while it copies from its memory (cma) stops at an
  // assertion when it closes the link.
  if (u.transports.empty() && !first_elsewhere(d)) u.transports = "posix,self";
  // Where shared memory is in use UCX cannot tell; the front tells of a process that is gone anyhow.
  u.notice_dead_peers = !names_shared_memory(u.transports);
  if (const WorkerPlace* self = d.find(rank)) u.devices = join(self->network_devices, ",");
  return u;
}

}  // namespace tandem
