// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "roles/front.h"

#include <poll.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <optional>
#include <thread>
#include <utility>

#include "base/format.h"
#include "base/json.h"
#include "base/random_bytes.h"
#include "roles/deployment_engine.h"
#include "roles/front_control.h"
#include "roles/front_peer.h"
#include "roles/pending_requests.h"

namespace tandem {
namespace {

constexpr Nanoseconds kMillisecond = 1'000'000;
constexpr Nanoseconds kFormingMax = 60'000 * kMillisecond;  // caches are made meanwhile
constexpr int kPollMs = 50;

class FrontThread;

// An attention worker as the engine sees it.
class Taker final : public RequestTaker {
 public:
  Taker(FrontThread& front, const FrontPeer& peer) : front_(front), peer_(peer) {}
  void submit(Request request, std::shared_ptr<EventStream> events) override;
  void cancel(RequestId id) override;
  std::int64_t outstanding() const override;
  bool available() const override { return peer_.available(); }
  const WorkerStats& stats() const override { return peer_.stats(); }
  Scheduler::Load load() const override { return peer_.load(); }

 private:
  FrontThread& front_;
  const FrontPeer& peer_;
};

class FrontThread final : public Front {
 public:
  FrontThread(const Deployment& deployment, const Identity& identity, FrontOptions options)
      : deployment_(deployment),
        identity_(identity),
        options_(std::move(options)),
        credentials_(credentials_of(deployment)),
        control_(deployment, credentials_.get(), [this](const std::string& why) { say("control   " + why); }) {
    for (const auto* list : {&deployment.attention, &deployment.ffn})
      for (const WorkerPlace& place : *list)
        peers_.push_back(std::make_unique<FrontPeer>(place, worker_name(deployment, place.rank), credentials_.get()));
    for (std::size_t a = 0; a < deployment.attention.size(); ++a)
      takers_.push_back(std::make_unique<Taker>(*this, *peers_[a]));
    lost_at_ = clock_.now();
    thread_ = std::thread([this] { run(); });
  }
  ~FrontThread() override { stop(); }

  // Throws what keeps the deployment from running.
  void wait_until_formed() {
    std::unique_lock lock(mutex_);
    const auto settled = [&] { return formed_once_ || failure_; };
    const Nanoseconds end = clock_.now() + options_.patience;
    while (!changed_.wait_for(lock, std::chrono::milliseconds(100), settled) && clock_.now() < end)
      if (options_.give_up && options_.give_up())
        throw Error(ErrorCode::kCancelled, format("stopped before deployment {} ran: {}", deployment_.name, missing_));
    if (failure_) throw *failure_;
    if (!formed_once_)
      throw Error(ErrorCode::kUnavailable,
                  format("deployment {} does not run after {} s: {}", deployment_.name,
                         options_.patience / (1000 * kMillisecond), missing_.empty() ? "it is forming" : missing_));
  }

  void submit(Request request, std::int32_t rank, std::shared_ptr<EventStream> events) {
    const RequestId id = request.id;
    const auto refuse = [&](ErrorCode code, std::string why) {
      events->push({.id = id, .tokens = {}, .finish = FinishReason::kError, .status = Status(code, std::move(why))});
    };
    if (const Status status = check_sendable(request); !status)
      return refuse(status.error().code(), status.error().message());
    {
      std::lock_guard lock(mutex_);
      if (stopping_) return events->push({.id = id, .tokens = {}, .finish = FinishReason::kCancelled});
      if (given_up_) return refuse(ErrorCode::kUnavailable, missing_);
      pending_.add(std::move(request), rank, std::move(events));
    }
    wake_.wake();
  }

  void cancel(RequestId id) {
    {
      std::lock_guard lock(mutex_);
      cancels_.push_back(id);
    }
    wake_.wake();
  }
  std::int64_t outstanding(std::int32_t rank) const { return pending_.count_of(rank); }

  std::vector<RequestTaker*> takers() const override {
    std::vector<RequestTaker*> takers;
    takers.reserve(takers_.size());
    for (const auto& taker : takers_) takers.push_back(taker.get());
    return takers;
  }
  std::vector<const WorkerStats*> ffn_stats() const override {
    std::vector<const WorkerStats*> stats;
    stats.reserve(peers_.size());
    for (std::size_t rank = takers_.size(); rank < peers_.size(); ++rank) stats.push_back(&peers_[rank]->stats());
    return stats;
  }
  std::int64_t weight_bytes() const override {
    std::int64_t bytes = 0;
    for (const auto& peer : peers_) bytes += peer->last_welcome().weight_bytes;
    return bytes;
  }
  std::string describe_backend() const override { return peers_.front()->last_welcome().backend; }
  std::int64_t kv_tokens() const override {
    std::int64_t least = peers_.front()->last_welcome().kv_tokens;
    for (std::size_t a = 1; a < takers_.size(); ++a) least = std::min(least, peers_[a]->last_welcome().kv_tokens);
    return least;
  }
  std::optional<Formation> formation() const override {
    Formation f{.epoch = epoch_, .formations = formations_};
    for (std::size_t rank = 0; rank < peers_.size(); ++rank)
      (rank < takers_.size() ? f.attention_present : f.ffn_present) += peers_[rank]->available();
    return f;
  }
  Welcome welcome(std::int32_t rank) const override { return peers_[static_cast<std::size_t>(rank)]->last_welcome(); }
  std::uint32_t epoch() const override { return epoch_; }

  void stop() override {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.wake();
    if (thread_.joinable()) thread_.join();
    pending_.end_all(FinishReason::kCancelled, Status::ok());
  }

 private:
  enum class Phase { kApart, kForming, kFormed };

  void say(const std::string& line) const {
    if (options_.say) options_.say(line);
  }

  // ---- the front's thread

  void run() {
    while (!stopping()) {
      for (const auto& peer : peers_) peer->dial(clock_.now());
      wait();
      for (const auto& peer : peers_) move(*peer);
      control_.move(clock_.now(), [this](const Order& order) { return obey(order); });
      take_cancels();
      check_times();
      if (phase_ == Phase::kApart && can_form()) form();
      if (phase_ == Phase::kFormed) send_requests();
    }
  }

  bool stopping() const {
    std::lock_guard lock(mutex_);
    return stopping_;
  }

  void wait() {
    std::vector<pollfd> waited{{wake_.fd(), POLLIN, 0}};
    for (const auto& peer : peers_) waited.push_back({peer->fd(), peer->events(), 0});
    control_.wait_for(waited);
    poll(waited.data(), waited.size(), kPollMs);
    if (waited.front().revents != 0) wake_.drain();
    moved_.clear();
    for (std::size_t i = 0; i < peers_.size(); ++i) moved_.push_back(waited[i + 1].revents != 0);
  }

  void move(FrontPeer& peer) {
    const auto rank = static_cast<std::size_t>(peer.place().rank);
    const bool wants = moved_[rank] || (peer.present() && (peer.events() & POLLOUT) != 0);
    if (!wants || peer.state() == FrontPeer::State::kAway) return;
    std::vector<ControlMessage> came;
    const Status status = peer.move({.identity = identity_, .rank = peer.place().rank}, clock_.now(), came);
    for (ControlMessage& message : came) {
      if (peer.state() == FrontPeer::State::kAway) return;
      take(peer, message);
    }
    if (status || peer.state() == FrontPeer::State::kAway) return;
    // Nothing of that changes by itself.
    if (status.error().code() == ErrorCode::kPermissionDenied)
      fail_start(Error(ErrorCode::kPermissionDenied, format("{}: {}", peer.title(), status.error().message())));
    lose(peer, status.error().message());
  }

  void take(FrontPeer& peer, ControlMessage& message) {
    if (const auto* refusal = std::get_if<Refusal>(&message)) return refused(peer, *refusal);
    if (const auto* welcome = std::get_if<Welcome>(&message)) return welcomed(peer, *welcome);
    if (!peer.present()) return lose(peer, "it did not begin with a welcome");
    if (auto* addresses = std::get_if<Addresses>(&message)) {
      if (peer.slow) return no_longer_slow(peer);
      // Those of an epoch that was dissolved are for nobody.
      const bool whole = addresses->epoch == epoch_ && addresses->introductions.size() == peers_.size();
      if (phase_ == Phase::kForming && whole) peer.addresses = std::move(*addresses);
      introduce();
    } else if (const auto* ready = std::get_if<Ready>(&message)) {
      peer.ready = phase_ == Phase::kForming && ready->epoch == epoch_;
      finish_forming();
    } else if (auto* news = std::get_if<News>(&message)) {
      if (phase_ != Phase::kFormed || news->epoch != epoch_) return;  // the past has no say
      if (!pending_.pass_on(std::move(news->event)) && suspicious_since_ == 0) suspicious_since_ = clock_.now();
    } else if (const auto* report = std::get_if<Report>(&message)) {
      peer.report(*report);
    } else {
      lose(peer, "what it says is no message from a worker");
    }
  }

  void refused(FrontPeer& peer, const Refusal& refusal) {
    const std::string why = format("{} refuses: {}", peer.title(), refusal.why);
    // What the next moment may change is tried again.
    if (refusal.code != ErrorCode::kUnavailable) fail_start(Error(refusal.code, why));
    lose(peer, refusal.why);
  }

  void welcomed(FrontPeer& peer, const Welcome& welcome) {
    std::string why = difference(identity_, welcome.identity);
    if (why.empty() && welcome.rank != peer.place().rank) why = format("it is rank {}", welcome.rank);
    if (!why.empty()) {
      fail_start(Error(ErrorCode::kInvalidArgument, format("{} is of another deployment: {}", peer.title(), why)));
      return lose(peer, why);
    }
    peer.welcome(welcome);
    say(format("joined    {}, process {}", peer.title(), welcome.process));
    if (phase_ != Phase::kApart && !peer.drained()) dissolve();  // one that was missed: meet again, with it
  }

  // Before the deployment has run once, what is wrong with a worker is the answer.
  void fail_start(Error error) {
    std::lock_guard lock(mutex_);
    if (!formed_once_ && !failure_) failure_ = std::move(error);
    changed_.notify_all();
  }

  void lose(FrontPeer& peer, const std::string& why) {
    const bool was_present = peer.present(), took_part = peer.takes_part;
    peer.lose(clock_.now(), why);
    if (was_present) say(format("lost      {}: {}", peer.title(), why));
    if (took_part && phase_ != Phase::kApart) dissolve();
  }

  void dissolve() {
    phase_ = Phase::kApart;
    lost_at_ = clock_.now();
    suspicious_since_ = 0;
    for (const auto& peer : peers_) {
      peer->takes_part = peer->ready = false;
      peer->addresses.reset();
      peer->outbox.clear();
      if (peer->present()) peer->post(Dissolve{});
    }
    pending_.unsend_all();
  }

  bool can_form() const {
    const auto here = [](const auto& peer) { return peer->usable(); };
    const auto ffn = peers_.begin() + static_cast<std::ptrdiff_t>(takers_.size());
    if (!std::all_of(ffn, peers_.end(), here)) return false;
    const auto expected = [&](const auto& peer) { return peer->drained() || here(peer); };
    return std::any_of(peers_.begin(), ffn, here) && (formed_once_ || std::all_of(peers_.begin(), ffn, expected));
  }

  void form() {
    phase_ = Phase::kForming;
    forming_since_ = clock_.now();
    Prepare prepare{.epoch = ++epoch_, .session = random_number(), .present = {}};
    for (const auto& peer : peers_) {
      peer->takes_part = peer->usable();
      prepare.present.push_back(peer->takes_part ? 1 : 0);
    }
    for (const auto& peer : peers_)
      if (peer->takes_part) peer->post(prepare);
  }

  // Whose endpoint takes long is not waited for where the others can do without. It still answers, so it is not lost;
  // one that never gets its endpoint ends itself.
  void leave_slow_behind() {
    std::vector<FrontPeer*> slow;
    for (const auto& peer : peers_)
      if (peer->takes_part && !peer->addresses) slow.push_back(peer.get());
    for (FrontPeer* peer : slow) peer->slow = true;
    const bool go_on = can_form();
    for (FrontPeer* peer : slow) {
      peer->slow = go_on;
      if (go_on) say(format("slow      {}: it has no endpoint yet", peer->title()));
    }
    if (go_on && !slow.empty()) dissolve();
  }

  void no_longer_slow(FrontPeer& peer) {
    peer.slow = false;
    say(format("joined    {}: it has an endpoint now", peer.title()));
    if (phase_ != Phase::kApart && !peer.drained()) dissolve();
  }

  // When all have told their addresses, each gets those of the others.
  void introduce() {
    if (phase_ != Phase::kForming) return;
    for (const auto& peer : peers_)
      if (peer->takes_part && !peer->addresses) return;
    for (const auto& to : peers_) {
      if (!to->takes_part) continue;
      const auto rank = static_cast<std::size_t>(to->place().rank);
      Connect connect{.epoch = epoch_, .introductions = std::vector<Introduction>(peers_.size())};
      for (const auto& from : peers_)
        if (from->addresses && rank < from->addresses->introductions.size())
          connect.introductions[static_cast<std::size_t>(from->place().rank)] = from->addresses->introductions[rank];
      to->post(connect);
    }
  }

  void finish_forming() {
    if (phase_ != Phase::kForming) return;
    for (const auto& peer : peers_)
      if (peer->takes_part && !peer->ready) return;
    phase_ = Phase::kFormed;
    ++formations_;
    std::lock_guard lock(mutex_);
    formed_once_ = true;
    given_up_ = false;
    changed_.notify_all();
    say(format("running   epoch {}", epoch_.load()));
  }

  void send_requests() {
    std::vector<bool> present;
    present.reserve(takers_.size());
    for (std::size_t a = 0; a < takers_.size(); ++a) present.push_back(peers_[a]->takes_part);
    for (PendingRequests::Sending& sending : pending_.take_unsent(present))
      peers_[static_cast<std::size_t>(sending.rank)]->outbox.add(std::move(sending.request));
    for (const auto& peer : peers_) peer->send();
  }

  void take_cancels() {
    std::vector<RequestId> cancels;
    {
      std::lock_guard lock(mutex_);
      cancels.swap(cancels_);
    }
    for (const RequestId id : cancels) {
      const std::int32_t rank = pending_.cancel(id);
      if (rank == PendingRequests::kNobody) continue;
      Outbox& outbox = peers_[static_cast<std::size_t>(rank)]->outbox;
      if (outbox.withdraw(id))
        pending_.end(id, FinishReason::kCancelled, Status::ok());
      else
        outbox.add(Cancel{id});
    }
  }

  void check_times() {
    const Nanoseconds now = clock_.now(), silence = deployment_.link.lost_after_ms * kMillisecond;
    for (const auto& peer : peers_) {
      peer->beat(now, deployment_.link.heartbeat_ms * kMillisecond);
      if (peer->state() != FrontPeer::State::kAway && now - peer->heard() > silence)
        lose(*peer, format("nothing was heard of it for {} ms (link.lost_after_ms)", deployment_.link.lost_after_ms));
    }
    if (phase_ == Phase::kForming && now - forming_since_ > silence) leave_slow_behind();
    for (const auto& peer : peers_)
      if (phase_ == Phase::kForming && now - forming_since_ > kFormingMax && peer->takes_part && !peer->ready)
        lose(*peer, "it has not met the others in time");
    // A hand-over has failed and nobody is gone: meet again.
    if (phase_ == Phase::kFormed && suspicious_since_ != 0 && now - suspicious_since_ > silence) dissolve();
    if (phase_ != Phase::kFormed) tell_missing(now);
  }

  // What an operator wants of it. A change of who takes part begins at once; status tells when it is done.
  Told obey(const Order& order) {
    if (order.kind == OrderKind::kStatus) return {to_line(status())};
    if (order.rank < 0 || order.rank >= std::ssize(peers_))
      throw Error(ErrorCode::kInvalidArgument, format("rank is {}, there are {} workers", order.rank, peers_.size()));
    FrontPeer& peer = *peers_[static_cast<std::size_t>(order.rank)];
    const bool drain = order.kind == OrderKind::kDrain;
    if (drain) check_drain(peer);
    if (peer.drained() == drain) return {to_line(status())};
    peer.set_drained(drain);
    say(format("{}   {}, as ordered", drain ? "drained" : "added  ", peer.title()));
    if (phase_ != Phase::kApart && (peer.takes_part || peer.present())) dissolve();
    return {to_line(status())};
  }

  void check_drain(const FrontPeer& peer) const {
    if (peer.place().rank >= std::ssize(takers_))
      throw Error(ErrorCode::kUnsupported,
                  format("{} holds a part of every layer that nobody else has: replicas of FFN "
                         "workers are not run yet",
                         peer.title()));
    const auto others = [&](const auto& other) {
      return other.get() != &peer && other->present() && !other->drained();
    };
    const auto ffn = peers_.begin() + static_cast<std::ptrdiff_t>(takers_.size());
    if (std::none_of(peers_.begin(), ffn, others))
      throw Error(ErrorCode::kUnavailable, format("{} is the last attention worker that is here", peer.title()));
  }

  OrderedJson status() const {
    static constexpr const char* kPhases[] = {"apart", "forming", "running"};
    OrderedJson workers = OrderedJson::array();
    for (const auto& peer : peers_) {
      OrderedJson worker = peer->status();
      if (peer->place().rank < std::ssize(takers_)) worker["requests"] = pending_.count_of(peer->place().rank);
      workers.push_back(std::move(worker));
    }
    std::lock_guard lock(mutex_);
    return {{"deployment", deployment_.name}, {"layout", identity_.layout},
            {"links", identity_.links},       {"phase", kPhases[static_cast<std::size_t>(phase_)]},
            {"epoch", epoch_.load()},         {"missing", phase_ == Phase::kFormed ? "" : missing_},
            {"workers", std::move(workers)}};
  }

  // Who is missing, for those who wait; and after a while an end of waiting.
  void tell_missing(Nanoseconds now) {
    std::vector<std::string> missing;
    for (const auto& peer : peers_)
      if (!peer->present() && !peer->drained())
        missing.push_back(format("{} is missing: {}", peer->title(), peer->why_away()));
    std::lock_guard lock(mutex_);
    missing_ = join(missing, "; ");
    if (!formed_once_ || given_up_ || now - lost_at_ <= deployment_.link.repair_ms_max * kMillisecond) return;
    given_up_ = true;
    if (missing_.empty()) missing_ = "the workers have not met in time";
    pending_.end_all(FinishReason::kError, Status(ErrorCode::kUnavailable, missing_));
  }

  const Deployment& deployment_;
  const Identity identity_;
  const FrontOptions options_;
  const std::shared_ptr<const Credentials> credentials_;
  const RealClock clock_;
  FrontControl control_;
  WakePipe wake_;
  std::vector<std::unique_ptr<FrontPeer>> peers_;  // by rank
  std::vector<std::unique_ptr<Taker>> takers_;
  PendingRequests pending_;
  Phase phase_ = Phase::kApart;
  std::atomic<std::uint32_t> epoch_ = 0;
  std::atomic<std::int64_t> formations_ = 0;
  Nanoseconds lost_at_ = 0, forming_since_ = 0, suspicious_since_ = 0;
  std::vector<bool> moved_;

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::vector<RequestId> cancels_;
  std::optional<Error> failure_;
  std::string missing_;
  std::atomic<bool> formed_once_ = false;
  bool given_up_ = false;  // who waits has waited long enough; until the deployment runs again
  bool stopping_ = false;
  std::thread thread_;
};

void Taker::submit(Request request, std::shared_ptr<EventStream> events) {
  front_.submit(std::move(request), peer_.place().rank, std::move(events));
}

void Taker::cancel(RequestId id) {
  front_.cancel(id);
}

std::int64_t Taker::outstanding() const {
  return front_.outstanding(peer_.place().rank);
}

}  // namespace

std::unique_ptr<Front> Front::connect(const Deployment& deployment, const Identity& identity, FrontOptions options) {
  check_supported(deployment, options.insecure);
  auto front = std::make_unique<FrontThread>(deployment, identity, std::move(options));
  front->wait_until_formed();
  return front;
}

}  // namespace tandem
