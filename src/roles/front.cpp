// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "roles/front.h"

#include <poll.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <utility>

#include "base/format.h"
#include "base/random_bytes.h"
#include "roles/deployment_engine.h"
#include "roles/front_control.h"
#include "roles/membership.h"

namespace tandem {
namespace {

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
        options_(std::move(options)),
        credentials_(credentials_of(deployment)),
        dialer_(credentials_.get()),
        membership_(deployment, identity,
                    {.clock = clock_, .dialer = dialer_, .random_number = random_number, .say = options_.say}),
        control_(deployment, credentials_.get(), [this](const std::string& why) {
          if (options_.say) options_.say("control   " + why);
        }) {
    for (std::size_t a = 0; a < membership_.attention_workers(); ++a)
      takers_.push_back(std::make_unique<Taker>(*this, peer(a)));
    thread_ = std::thread([this] { run(); });
  }
  ~FrontThread() override { stop(); }

  // Throws what keeps the deployment from running.
  void wait_until_formed() {
    const Nanoseconds end = clock_.now() + options_.patience;
    Membership::Standing standing = membership_.standing();
    for (; !standing.formed_once && clock_.now() < end; standing = membership_.standing()) {
      if (standing.failure) throw *standing.failure;
      if (options_.give_up && options_.give_up())
        throw Error(ErrorCode::kCancelled,
                    format("stopped before deployment {} ran: {}", deployment_.name, standing.missing));
      std::unique_lock lock(mutex_);
      turned_.wait_for(lock, std::chrono::milliseconds(100));
    }
    if (standing.failure) throw *standing.failure;
    if (!standing.formed_once)
      throw Error(ErrorCode::kUnavailable,
                  format("deployment {} does not run after {} s: {}", deployment_.name, options_.patience / kSecond,
                         standing.missing.empty() ? "it is forming" : standing.missing));
  }

  void submit(Request request, std::int32_t rank, std::shared_ptr<EventStream> events) {
    membership_.submit(std::move(request), rank, std::move(events));
    wake_.wake();
  }
  void cancel(RequestId id) {
    membership_.cancel(id);
    wake_.wake();
  }
  std::int64_t outstanding(std::int32_t rank) const { return membership_.outstanding(rank); }

  std::vector<RequestTaker*> takers() const override {
    std::vector<RequestTaker*> takers;
    takers.reserve(takers_.size());
    for (const auto& taker : takers_) takers.push_back(taker.get());
    return takers;
  }
  std::vector<const WorkerStats*> ffn_stats() const override {
    std::vector<const WorkerStats*> stats;
    for (std::size_t rank = takers_.size(); rank < membership_.peers().size(); ++rank)
      stats.push_back(&peer(rank).stats());
    return stats;
  }
  std::int64_t weight_bytes() const override {
    std::int64_t bytes = 0;
    for (const auto& peer : membership_.peers()) bytes += peer->last_welcome().weight_bytes;
    return bytes;
  }
  std::string describe_backend() const override { return peer(0).last_welcome().backend; }
  std::int64_t kv_tokens() const override {
    std::int64_t least = peer(0).last_welcome().kv_tokens;
    for (std::size_t a = 1; a < takers_.size(); ++a) least = std::min(least, peer(a).last_welcome().kv_tokens);
    return least;
  }
  std::optional<Formation> formation() const override {
    Formation f{.epoch = membership_.epoch(), .formations = membership_.formations()};
    for (std::size_t rank = 0; rank < membership_.peers().size(); ++rank)
      (rank < takers_.size() ? f.attention_present : f.ffn_present) += peer(rank).available();
    return f;
  }
  Welcome welcome(std::int32_t rank) const override { return peer(static_cast<std::size_t>(rank)).last_welcome(); }
  std::uint32_t epoch() const override { return membership_.epoch(); }

  void stop() override {
    membership_.close();
    stopping_ = true;
    wake_.wake();
    if (thread_.joinable()) thread_.join();
    membership_.end_all();
  }

 private:
  const FrontPeer& peer(std::size_t rank) const { return *membership_.peers()[rank]; }

  // ---- the front's thread

  void run() {
    while (!stopping_) {
      membership_.turn([this](const ControlChannel& channel) { return moved_.contains(&channel); });
      turned_.notify_all();
      wait();
      control_.move(clock_.now(), [this](const Order& order) { return membership_.obey(order); });
    }
  }

  void wait() {
    std::vector<pollfd> waited{{wake_.fd(), POLLIN, 0}};
    std::vector<const ControlChannel*> channels;
    for (const auto& peer : membership_.peers())
      if (const ControlChannel* channel = peer->channel()) channels.push_back(channel);
    for (const ControlChannel* channel : channels) waited.push_back({channel->fd(), channel->events(), 0});
    control_.wait_for(waited);
    poll(waited.data(), waited.size(), kPollMs);
    if (waited.front().revents != 0) wake_.drain();
    moved_.clear();
    for (std::size_t i = 0; i < channels.size(); ++i)
      if (waited[i + 1].revents != 0) moved_.insert(channels[i]);
  }

  const Deployment& deployment_;
  const FrontOptions options_;
  const std::shared_ptr<const Credentials> credentials_;
  const RealClock clock_;
  TcpDialer dialer_;
  Membership membership_;
  FrontControl control_;
  WakePipe wake_;
  std::vector<std::unique_ptr<Taker>> takers_;  // by rank
  std::set<const ControlChannel*> moved_;       // that poll named last
  std::mutex mutex_;
  std::condition_variable turned_;
  std::atomic<bool> stopping_ = false;
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
