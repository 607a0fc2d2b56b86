// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "roles/worker_host.h"

#include <algorithm>
#include <span>
#include <utility>

#include "base/format.h"
#include "checkpoint/checkpoint.h"
#include "engine/settings/gpu_places.h"
#include "roles/deployment_engine.h"
#include "sched/admission.h"
#include "transport/sealed/sealed.h"

namespace tandem {
namespace {

// In the list that shares() gives.
std::size_t share_index(const Deployment& d, const WorkerPlace& w) {
  const auto attention = static_cast<std::int32_t>(d.attention.size());
  return static_cast<std::size_t>(std::max(0, w.seat() - attention + 1));
}

// Of all workers that share this one's memory: their weights, and how many keep KV.
MemoryUse memory_use(const Deployment& d, std::int32_t rank, const std::vector<ModelShare>& all,
                     const Checkpoint& checkpoint) {
  MemoryUse r;
  const std::string& host = d.find(rank)->host;
  // A GPU has one worker.
  const auto beside = [&](const WorkerPlace& w) { return d.engine.device == "cuda" ? w.rank == rank : w.host == host; };
  for (const WorkerPlace& w : d.attention) r.attention_workers += beside(w);
  r.weight_bytes = r.attention_workers * total_bytes(measure_share(checkpoint, all[0]));
  for (const WorkerPlace& f : d.ffn)
    if (beside(f)) r.weight_bytes += total_bytes(measure_share(checkpoint, all[share_index(d, f)]));
  return r;
}

}  // namespace

LoadedWorker load_worker(const Deployment& deployment, std::int32_t rank, Observer* observer) {
  const std::unique_ptr<Checkpoint> checkpoint = Checkpoint::open(deployment.model);
  LoadedWorker loaded{.identity = identity_of(deployment, *checkpoint), .config = {}, .model = {}, .backend = {}};
  const ModelConfig model = read_config(*checkpoint);
  EngineConfig config = engine_config(deployment, rank);
  config.attention_gpus = config.ffn_gpus = deployment.find(rank)->devices;
  // The front limits how many wait for each attention worker. When others are lost, all of theirs come here.
  config.queue_max = (config.queue_max + config.sequences_max) * config.layout.attention_workers;
  const std::vector<ModelShare> all = shares(config.layout, model.experts);
  MemoryUse use = memory_use(deployment, rank, all, *checkpoint);
  use.gpu = gpu_of(config, 0);  // all workers' that this process has
  loaded.config = resolve(std::move(config), model, std::span(&use, 1));
  loaded.config.observer = observer;
  const std::unique_ptr<Backend> loader = make_worker_backend(loaded.config, 0);
  loaded.backend = loader->describe();
  loaded.model = load_model(*checkpoint, all[share_index(deployment, *deployment.find(rank))], *loader);
  return loaded;
}

WorkerHost::WorkerHost(const Deployment& deployment, std::int32_t rank, LoadedWorker loaded, WorkerWorld& world,
                       ConstraintFactory make_constraint)
    : deployment_(deployment),
      rank_(rank),
      seat_(deployment.find(rank)->seat()),
      world_(world),
      identity_(std::move(loaded.identity)),
      config_(std::move(loaded.config)),
      model_(std::move(loaded.model)),
      backend_(std::move(loaded.backend)),
      constraints_(std::move(make_constraint), [this] { world_.wake(); }) {}

WorkerHost::~WorkerHost() {
  dissolve();
}

Welcome WorkerHost::welcome() const {
  return {.identity = identity_,
          .rank = rank_,
          .process = world_.process(),
          .weight_bytes = model_->weight_bytes(),
          .kv_tokens = is_attention() ? config_.kv_tokens : 0,
          .backend = backend_};
}

void WorkerHost::prepare(const Prepare& prepare) {
  dissolve();
  const std::int32_t workers = config_.layout.workers();
  if (std::ssize(prepare.present) != workers)
    throw Error(ErrorCode::kInvalidData,
                format("{} workers are prepared for, this deployment has {}", prepare.present.size(), workers));
  config_.epoch = prepare.epoch;
  config_.deployment = prepare.session;
  prepare_ = prepare;
  if (world_.endpoints().busy()) return;  // one that nobody has seen, and that will do for this epoch
  world_.endpoints().begin(seat_, workers, ucx_config(deployment_, rank_, config_, model_->config()));
}

std::optional<Addresses> WorkerHost::take_addresses() {
  std::unique_ptr<MeetingTransport> made = world_.endpoints().take();
  if (!made) return std::nullopt;
  if (!prepare_) return Addresses{.epoch = config_.epoch, .introductions = {}};
  endpoint_ = std::move(made);
  return addresses();
}

// Of the endpoint, for each peer that takes part.
Addresses WorkerHost::addresses() {
  const std::int32_t workers = config_.layout.workers();
  const Prepare prepare = *std::exchange(prepare_, std::nullopt);
  if (deployment_.link.encrypt) {
    key_shares_.resize(static_cast<std::size_t>(workers));
    for (KeyShare& share : key_shares_) world_.fill_random(std::as_writable_bytes(std::span(share)));
  }
  Addresses addresses{.epoch = prepare.epoch, .introductions = {}};
  addresses.introductions.resize(static_cast<std::size_t>(workers));
  for (PeerRank peer = 0; peer < workers; ++peer) {
    // FFN workers have nothing to say to each other.
    const bool speaks = is_attention() || peer < config_.layout.attention_workers;
    if (peer == seat_ || !speaks || prepare.present[static_cast<std::size_t>(peer)] == 0) continue;
    Introduction& introduction = addresses.introductions[static_cast<std::size_t>(peer)];
    introduction.hello = endpoint_->hello_for(peer);
    if (key_shares_.empty()) continue;
    const KeyShare& share = key_shares_[static_cast<std::size_t>(peer)];
    introduction.key_share.assign(share.begin(), share.end());
  }
  return addresses;
}

void WorkerHost::connect(const Connect& connect) {
  if (prepare_ && connect.epoch == config_.epoch)
    throw Error(ErrorCode::kInvalidData,
                format("peers of epoch {} come before this worker has an endpoint", connect.epoch));
  if (!endpoint_ || connected_ || connect.epoch != config_.epoch)
    throw Error(ErrorCode::kInvalidData,
                format("peers of epoch {} come, {} is prepared", connect.epoch, config_.epoch));
  if (std::ssize(connect.introductions) != config_.layout.workers())
    throw Error(ErrorCode::kInvalidData, format("{} peers are introduced, this deployment has {}",
                                                connect.introductions.size(), config_.layout.workers()));
  for (const Introduction& introduction : connect.introductions) {
    const bool meets = !introduction.hello.empty();
    const std::size_t share_bytes = meets && !key_shares_.empty() ? sizeof(KeyShare) : 0;
    if (introduction.key_share.size() != share_bytes)
      throw Error(ErrorCode::kInvalidData, format("a peer's share of the key has {} bytes, {} are expected",
                                                  introduction.key_share.size(), share_bytes));
    if (meets) endpoint_->connect(introduction.hello);
  }
  introductions_ = connect.introductions;
  connected_ = true;
}

// For the worker: with seals where the deployment has them. What the keys were made of is forgotten.
std::unique_ptr<Transport> WorkerHost::take_endpoint() {
  if (key_shares_.empty()) return std::move(endpoint_);
  auto sealed = std::make_unique<SealedTransport>(std::move(endpoint_));
  for (PeerRank peer = 0; peer < std::ssize(introductions_); ++peer) {
    std::vector<std::byte>& bytes = introductions_[static_cast<std::size_t>(peer)].key_share;
    if (bytes.empty()) continue;
    KeyShare theirs{}, &mine = key_shares_[static_cast<std::size_t>(peer)];
    std::ranges::copy(bytes, theirs.begin());
    SecretKey to = link_key(mine, theirs, {.from = seat_, .to = peer, .session = config_.deployment}),
              from = link_key(theirs, mine, {.from = peer, .to = seat_, .session = config_.deployment});
    sealed->set_keys(peer, to, from);
    for (const std::span<std::byte> secret :
         {std::span<std::byte>(bytes), std::span<std::byte>(theirs), std::span<std::byte>(mine),
          std::span<std::byte>(to), std::span<std::byte>(from)})
      wipe(secret);
  }
  return sealed;
}

bool WorkerHost::try_start() {
  if (!joining() || !endpoint_->ready()) return false;
  connected_ = false;
  WorkerParts parts{.worker = worker_config(config_, model_->config()),
                    .index = is_attention() ? seat_ : seat_ - config_.layout.attention_workers,
                    .model = model_,
                    .backend = remains_ ? std::move(remains_->backend) : make_worker_backend(config_, 0),
                    .transport = take_endpoint(),
                    .clock = &world_.clock()};
  if (remains_) parts.kept = std::move(remains_->kv);  // if any
  remains_.reset();
  if (is_attention()) {
    events_ = std::make_shared<EventStream>();
    events_->listen([this] { world_.wake(); });
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
  thread_ = world_.start([this, &worker] {
    try {
      worker.run();
    } catch (const std::exception& error) {
      std::lock_guard lock(mutex_);
      failure_ = Status(ErrorCode::kInternal, format("the worker has failed: {}", error.what()));
    }
    world_.wake();
  });
}

void WorkerHost::dissolve() {
  if (attention_) attention_->stop();
  if (ffn_) ffn_->stop();
  thread_.reset();
  if (events_) events_->listen({});
  constraints_.drop_all();
  parcel_.clear();
  coming_.clear();
  coming_bytes_ = 0;
  if (attention_) dismantle();
  ffn_.reset();
  events_.reset();
  endpoint_.reset();
  prepare_.reset();
  key_shares_.clear();
  introductions_.clear();
  connected_ = false;
  std::lock_guard lock(mutex_);
  left_.clear();
}

// A device that has failed has nothing to keep.
void WorkerHost::dismantle() {
  try {
    remains_ = AttentionWorker::dismantle(std::move(attention_));
  } catch (const Error&) {
    remains_.reset();
  }
}

void WorkerHost::take(Rows rows) {
  parcel_.take(std::move(rows));
}

void WorkerHost::take(Page piece) {
  constexpr std::size_t kRequestsMax = 4096;
  Coming& coming = coming_[piece.id];
  if (coming_.size() > kRequestsMax)
    throw Error(ErrorCode::kInvalidData, format("KV of more than {} requests came ahead of them", kRequestsMax));
  const bool begins = piece.index == coming.pages.size();
  coming.order.take(piece);
  if (coming_bytes_ + piece.bytes.size() > kComingBytesMax) {
    for (auto& [id, other] : coming_) {
      other.pages.clear();
      other.dropped = true;
    }
    coming_bytes_ = 0;
  }
  if (coming.dropped) return;
  coming_bytes_ += piece.bytes.size();
  if (begins) return coming.pages.push_back(std::move(piece.bytes));
  std::vector<std::byte>& page = coming.pages.back();
  page.insert(page.end(), piece.bytes.begin(), piece.bytes.end());
}

Pages WorkerHost::take_pages(RequestId id) {
  const auto found = coming_.find(id);
  if (found == coming_.end()) return {};
  Pages pages = std::move(found->second.pages);
  coming_.erase(found);
  for (const std::vector<std::byte>& page : pages) coming_bytes_ -= page.size();
  return pages;
}

// To the worker, with the KV that came ahead of it.
void WorkerHost::hand_on(Request request) {
  Pages pages = take_pages(request.id);
  attention_->submit(std::move(request), events_, std::move(pages));
}

void WorkerHost::give_up(RequestId id) {
  if (!attention_) return;  // it was dissolved meanwhile; the front knows
  const auto leave = [this, id](Pages pages) {
    std::lock_guard lock(mutex_);
    left_.push_back({id, std::move(pages)});
    world_.wake();
  };
  if (constraints_.cancel(id)) return leave(take_pages(id));
  attention_->give_up(id, kPagesBytesMax, leave);
}

std::vector<WorkerHost::Left> WorkerHost::take_left() {
  std::lock_guard lock(mutex_);
  return std::exchange(left_, {});
}

void WorkerHost::submit(Submit submit) {
  std::optional<ConstraintRecipe> recipe = std::move(submit.constraint);
  Request request = parcel_.take(std::move(submit));
  if (!attention_) return;  // it was dissolved meanwhile; the front knows
  if (Status status = check(request, recipe.has_value()); !status)
    return end(request.id, FinishReason::kError, std::move(status));
  request.arrival = world_.clock().now();
  if (recipe) return constraints_.make(std::move(request), std::move(*recipe));
  hand_on(std::move(request));
}

// What the scheduler would refuse is so refused before a grammar is compiled for it, and before a constraint takes
// tokens that the model has not.
Status WorkerHost::check(const Request& request, bool constrained) const {
  const ModelConfig& model = model_->config();
  if (Status status = check_sampling(request.sampling, model.vocab); !status) return status;
  const SchedulerConfig scheduler = scheduler_config(config_, model);
  if (Status status = check_request(request, scheduler, config_.kv_tokens / kBlockTokens); !status) return status;
  const std::int64_t waiting = constraints_.waiting();
  if (constrained && waiting >= config_.queue_max)
    return {ErrorCode::kOutOfResources,
            format("{} requests wait for their grammars to be compiled, limit is {}", waiting, config_.queue_max)};
  return Status::ok();
}

void WorkerHost::take_constrained() {
  for (ConstraintThread::Made& made : constraints_.take_made()) {
    if (made.status)
      hand_on(std::move(made.request));
    else
      end(made.request.id, FinishReason::kError, std::move(made.status));
  }
}

void WorkerHost::end(RequestId id, FinishReason finish, Status status) {
  take_pages(id);
  events_->push({.id = id, .tokens = {}, .finish = finish, .status = std::move(status)});
}

void WorkerHost::cancel(RequestId id) {
  if (!attention_) return;
  take_pages(id);  // of one that does not come any more
  if (constraints_.cancel(id)) return end(id, FinishReason::kCancelled, Status::ok());
  attention_->cancel(id);
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
  if (attention_) report.load = attention_->load();
  return report;
}

Status WorkerHost::failure() const {
  std::lock_guard lock(mutex_);
  return failure_;
}

}  // namespace tandem
