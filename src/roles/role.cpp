// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "roles/role.h"

#include <poll.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/format.h"
#include "roles/deployment_engine.h"
#include "roles/visitors.h"
#include "roles/worker_host.h"

namespace tandem {
namespace {

constexpr Nanoseconds kMillisecond = 1'000'000;

constexpr int kWaitMs = 500;  // at most: visitors have times

class Role {
 public:
  Role(const Deployment& deployment, const RoleOptions& options)
      : deployment_(deployment),
        options_(options),
        credentials_(credentials_of(deployment)),
        host_(deployment, options.rank, options.make_constraint, options.observer, options.endpoints),
        place_(*deployment.find(options.rank)),
        listener_(listen_on(place_.host, place_.port)),
        visitors_(credentials_.get(), deployment.link.lost_after_ms * kMillisecond,
                  [this](const std::string& why) { say("refused   a connection: " + why); }) {}

  void serve() {
    say(format("ready     {} on {}:{}, {} weights, {}", worker_name(deployment_, options_.rank), place_.host,
               place_.port, mebibytes(host_.welcome().weight_bytes), host_.welcome().backend));
    while (!wait()) {
      if (const Status failure = host_.failure(); !failure) fail(failure.error());
      if (const Status overdue = host_.overdue(); !overdue)
        fail(StuckWorker(overdue.error().code(), overdue.error().message()));
      tell_addresses();
      if (joins_ && host_.try_start()) {
        joins_ = false;
        front_->post(Ready{host_.epoch()});
      }
      host_.take_constrained();
      for (RequestEvent& event : host_.take_news())
        if (front_) front_->post(News{host_.epoch(), std::move(event)});
      check_times();
      move();
      for (Visitors::Guest& guest : visitors_.move(clock_.now())) greet(guest);
    }
    host_.dissolve();
  }

 private:
  static std::string mebibytes(std::int64_t bytes) {
    return format("{:.1f} MiB", static_cast<double>(bytes) / (1 << 20));
  }

  void say(const std::string& line) const {
    if (options_.say) options_.say(line);
  }

  // True when the process has to end.
  bool wait() {
    std::vector<pollfd> waited{{options_.stop, POLLIN, 0},
                               {listener_.get(), POLLIN, 0},
                               {host_.wake().fd(), POLLIN, 0},
                               {front_ ? front_->fd() : -1, POLLIN, 0}};
    if (front_ && front_->wants_to_write()) waited[3].events |= POLLOUT;
    visitors_.wait_for(waited);
    const int beat = static_cast<int>(std::min<std::int64_t>(deployment_.link.heartbeat_ms, kWaitMs));
    poll(waited.data(), waited.size(), joins_ ? 1 : beat);
    if (waited[0].revents != 0) return true;
    if (waited[2].revents != 0) host_.wake().drain();
    if (waited[1].revents != 0) visitors_.accept(listener_, clock_.now());
    return false;
  }

  void tell_addresses() {
    try {
      if (const std::optional<Addresses> addresses = host_.take_addresses(); addresses && front_)
        front_->post(*addresses);
    } catch (const Error& error) {
      if (!front_) return;
      refuse(*front_, error.code(), error.message());
      drop("refused: " + error.message());
    }
  }

  // What the front waits for, and whether it is still there.
  void check_times() {
    if (!front_) return;
    const Nanoseconds now = clock_.now();
    if (now - reported_ >= deployment_.link.heartbeat_ms * kMillisecond) {
      front_->post(host_.report());
      reported_ = now;
    }
    if (now - heard_ > deployment_.link.lost_after_ms * kMillisecond)
      drop(format("nothing was heard of it for {} ms (link.lost_after_ms)", deployment_.link.lost_after_ms));
  }

  void move() {
    if (!front_) return;
    std::vector<ControlMessage> came;
    const Status moved = front_->move(came);
    take_all(came);
    if (front_ && !moved) drop(moved.error().message());
  }

  void take_all(std::span<ControlMessage> came) {
    if (!came.empty()) heard_ = clock_.now();
    try {
      for (ControlMessage& message : came) take(message);
    } catch (const Error& error) {
      refuse(*front_, error.code(), error.message());
      drop("refused: " + error.message());
    }
  }

  void take(ControlMessage& message) {
    if (const auto* prepare = std::get_if<Prepare>(&message)) {
      joins_ = false;
      host_.prepare(*prepare);
    } else if (const auto* connect = std::get_if<Connect>(&message)) {
      host_.connect(*connect);
      joins_ = true;
    } else if (std::holds_alternative<Dissolve>(message)) {
      joins_ = false;
      host_.dissolve();
    } else if (auto* submit = std::get_if<Submit>(&message); submit && host_.is_attention()) {
      host_.submit(std::move(*submit));
    } else if (auto* rows = std::get_if<Rows>(&message); rows && host_.is_attention()) {
      host_.take(std::move(*rows));
    } else if (const auto* cancel = std::get_if<Cancel>(&message)) {
      host_.cancel(cancel->id);
    } else if (!std::holds_alternative<Beat>(message)) {
      throw Error(ErrorCode::kInvalidData, "this is no message from a front to such a worker");
    }
  }

  // Who greets as a front of this deployment is the front, unless there is one.
  void greet(Visitors::Guest& guest) {
    try {
      check_greeting(guest.said.front());
      move();  // the one before may have left
      if (front_) throw Error(ErrorCode::kUnavailable, "another front is connected");
    } catch (const Error& error) {
      refuse(guest.connection, error.code(), error.message());
      return visitors_.tell_refused(error.message(), clock_.now());
    }
    front_.emplace(std::move(guest.connection));
    front_->allow_long_messages();
    front_->post(host_.welcome());
    reported_ = clock_.now();
    take_all(std::span(guest.said).subspan(1));
    heard_ = clock_.now();
    move();  // of its welcome, as much as goes
  }

  void check_greeting(const ControlMessage& message) const {
    const auto* greeting = std::get_if<Greeting>(&message);
    if (!greeting) throw Error(ErrorCode::kInvalidData, "a front begins with a greeting");
    if (const std::string why = difference(host_.identity(), greeting->identity); !why.empty())
      throw Error(ErrorCode::kInvalidArgument, why);
    if (greeting->rank != options_.rank)
      throw Error(ErrorCode::kInvalidArgument,
                  format("this is rank {}, the front means {}", options_.rank, greeting->rank));
  }

  static void refuse(ControlConnection& connection, ErrorCode code, const std::string& why) {
    connection.post(Refusal{code, why});
    std::vector<ControlMessage> ignored;
    (void)connection.move(ignored);  // last words; it may have left already
  }

  // The front is gone, or has to go; the next one is waited for.
  void drop(const std::string& why) {
    say(format("front     is gone: {}", why));
    front_.reset();
    joins_ = false;
    host_.dissolve();
  }

  template <class Failure>
  [[noreturn]] void fail(const Failure& error) {
    if (front_) {
      refuse(*front_, error.code(), error.message());
      drop("refused: " + error.message());
    }
    throw error;
  }

  const Deployment& deployment_;
  const RoleOptions& options_;
  const std::shared_ptr<const Credentials> credentials_;
  WorkerHost host_;
  const WorkerPlace& place_;
  Descriptor listener_;
  RealClock clock_;
  Visitors visitors_;
  std::optional<ControlConnection> front_;  // of this deployment, as far as it has shown
  bool joins_ = false;                      // peers are to be heard before the worker can run
  Nanoseconds heard_ = 0, reported_ = 0;
};

}  // namespace

void run_role(RoleKind kind, const Deployment& deployment, const RoleOptions& options) {
  check_supported(deployment, options.insecure);
  const auto attention = static_cast<std::int32_t>(deployment.attention.size());
  const bool fits = deployment.find(options.rank) && (options.rank < attention) == (kind == RoleKind::kAttention);
  if (!fits) {
    const std::int32_t first = kind == RoleKind::kAttention ? 0 : attention;
    const std::int32_t count = kind == RoleKind::kAttention ? attention : deployment.primaries();
    throw Error(ErrorCode::kInvalidArgument,
                format("rank is {}, {} workers of deployment {} have {} … {} (--rank)", options.rank,
                       kind == RoleKind::kAttention ? "attention" : "FFN", deployment.name, first, first + count - 1));
  }
  Role(deployment, options).serve();
}

}  // namespace tandem
