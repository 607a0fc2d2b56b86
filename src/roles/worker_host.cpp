// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "roles/worker_host.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/format.h"
#include "roles/deployment_engine.h"
#include "sched/admission.h"

namespace tandem {
namespace {

// Of all workers that share this one's machine: their weights, and how many keep KV.
struct Residents {
  std::int64_t weight_bytes = 0;
  std::int32_t attention_workers = 0;
};

Residents residents_of(const Deployment& d, std::int32_t rank, const std::vector<ModelShare>& all,
                       const Checkpoint& checkpoint) {
  Residents r;
  const std::string& host = d.find(rank)->host;
  for (const WorkerPlace& w : d.attention) r.attention_workers += w.host == host;
  r.weight_bytes = r.attention_workers * total_bytes(measure_share(checkpoint, all[0]));
  for (std::size_t f = 0; f < d.ffn.size(); ++f)
    if (d.ffn[f].host == host) r.weight_bytes += total_bytes(measure_share(checkpoint, all[f + 1]));
  return r;
}

}  // namespace

WorkerHost::WorkerHost(const Deployment& deployment, std::int32_t rank, Observer* observer)
    : deployment_(deployment), rank_(rank), checkpoint_(Checkpoint::open(deployment.model)) {
  identity_ = identity_of(deployment, *checkpoint_);
  const ModelConfig model = read_config(*checkpoint_);
  EngineConfig config = engine_config(deployment, rank);
  const std::vector<ModelShare> all = shares(config.layout, model.experts);
  const Residents residents = residents_of(deployment, rank, all, *checkpoint_);
  config_ = resolve(std::move(config), model, residents.weight_bytes, std::max(residents.attention_workers, 1));
  config_.observer = observer;
  config_.deployment = identity_.settings;
  const std::unique_ptr<Backend> loader = make_worker_backend(config_);
  backend_ = loader->describe();
  const std::int32_t share = std::max(0, rank - config_.layout.attention_workers + 1);
  model_ = load_model(*checkpoint_, all[static_cast<std::size_t>(share)], *loader);
}

WorkerHost::~WorkerHost() {
  dissolve();
}

Welcome WorkerHost::welcome() const {
  return {.identity = identity_,
          .rank = rank_,
          .process = getpid(),
          .weight_bytes = model_->weight_bytes(),
          .kv_tokens = is_attention() ? config_.kv_tokens : 0,
          .backend = backend_};
}

Addresses WorkerHost::prepare(const Prepare& prepare) {
  dissolve();
  const std::int32_t workers = config_.layout.workers();
  if (std::ssize(prepare.present) != workers)
    throw Error(ErrorCode::kInvalidData,
                format("{} workers are prepared for, this deployment has {}", prepare.present.size(), workers));
  config_.epoch = prepare.epoch;
  endpoint_ = UcxTransport::make(rank_, workers, ucx_config(deployment_, rank_, config_, model_->config()));
  Addresses addresses{.epoch = prepare.epoch, .hellos = {}};
  addresses.hellos.resize(static_cast<std::size_t>(workers));
  for (PeerRank peer = 0; peer < workers; ++peer) {
    // FFN workers have nothing to say to each other.
    const bool speaks = is_attention() || peer < config_.layout.attention_workers;
    if (peer != rank_ && speaks && prepare.present[static_cast<std::size_t>(peer)] != 0)
      addresses.hellos[static_cast<std::size_t>(peer)] = endpoint_->hello_for(peer);
  }
  return addresses;
}

void WorkerHost::connect(const Connect& connect) {
  if (!endpoint_ || connected_ || connect.epoch != config_.epoch)
    throw Error(ErrorCode::kInvalidData,
                format("peers of epoch {} come, {} is prepared", connect.epoch, config_.epoch));
  for (const std::vector<std::byte>& hello : connect.hellos)
    if (!hello.empty()) endpoint_->connect(hello);
  connected_ = true;
}

bool WorkerHost::try_start() {
  if (!joining() || !endpoint_->ready()) return false;
  connected_ = false;
  WorkerParts parts{.worker = worker_config(config_, model_->config()),
                    .index = is_attention() ? rank_ : rank_ - config_.layout.attention_workers,
                    .model = model_,
                    .backend = make_worker_backend(config_),
                    .transport = std::move(endpoint_),
                    .clock = &clock_};
  if (is_attention()) {
    events_ = std::make_shared<EventStream>();
    events_->listen([this] { wake_.wake(); });
    attention_ = make_attention_worker(config_, std::move(parts));
    start(*attention_);
  } else {
    ffn_ = make_ffn_worker(config_, std::move(parts));
    start(*ffn_);
  }
  return true;
}

template <class Worker>
void WorkerHost::start(Worker& worker) {
  thread_ = std::thread([this, &worker] {
    try {
      worker.run();
    } catch (const std::exception& error) {
      std::lock_guard lock(mutex_);
      failure_ = Status(ErrorCode::kInternal, format("the worker has failed: {}", error.what()));
    }
    wake_.wake();
  });
}

void WorkerHost::dissolve() {
  if (attention_) attention_->stop();
  if (ffn_) ffn_->stop();
  if (thread_.joinable()) thread_.join();
  if (events_) events_->listen({});
  attention_.reset();
  ffn_.reset();
  events_.reset();
  endpoint_.reset();
  connected_ = false;
}

void WorkerHost::submit(Request request) {
  const RequestId id = request.id;
  if (!attention_) return;  // it was dissolved meanwhile; the front knows
  if (Status status = check_sampling(request.sampling, model_->config().vocab); !status)
    return events_->push({.id = id, .tokens = {}, .finish = FinishReason::kError, .status = std::move(status)});
  request.arrival = clock_.now();
  attention_->submit(std::move(request), events_);
}

void WorkerHost::cancel(RequestId id) {
  if (attention_) attention_->cancel(id);
}

std::vector<RequestEvent> WorkerHost::take_news() {
  std::vector<RequestEvent> news;
  if (!events_) return news;
  while (std::optional<RequestEvent> event = events_->pop(0)) news.push_back(std::move(*event));
  return news;
}

Report WorkerHost::report() const {
  Report report;
  if (!attention_ && !ffn_) return report;
  const WorkerStats& stats = attention_ ? attention_->stats() : ffn_->stats();
  report.steps = stats.steps;
  report.rows = stats.rows;
  report.busy_ns = stats.busy_ns;
  report.wait_ns = stats.wait_ns;
  report.resends = stats.resends;
  report.frames_refused = stats.frames_refused;
  if (!attention_) return report;
  const Scheduler::Load load = attention_->load();
  report.waiting = load.waiting;
  report.running = load.running;
  report.preemptions = load.preemptions;
  report.kv_blocks = load.kv.blocks;
  report.kv_held = load.kv.held;
  report.kv_cached = load.kv.cached;
  report.lookup_tokens = load.kv.lookup_tokens;
  report.hit_tokens = load.kv.hit_tokens;
  return report;
}

Status WorkerHost::failure() const {
  std::lock_guard lock(mutex_);
  return failure_;
}

}  // namespace tandem
