// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "roles/role.h"

#include <poll.h>

#include <array>
#include <optional>
#include <utility>

#include "base/format.h"
#include "roles/deployment_engine.h"
#include "roles/worker_host.h"

namespace tandem {
namespace {

constexpr Nanoseconds kMillisecond = 1'000'000;

class Role {
 public:
  Role(const Deployment& deployment, const RoleOptions& options)
      : deployment_(deployment),
        options_(options),
        host_(deployment, options.rank, options.observer),
        place_(*deployment.find(options.rank)),
        listener_(listen_on(place_.host, place_.port)) {}

  void serve() {
    say(format("ready     {} on {}:{}, {} weights, {}", worker_name(deployment_, options_.rank), place_.host,
               place_.port, mebibytes(host_.welcome().weight_bytes), host_.welcome().backend));
    while (!wait()) {
      if (const Status failure = host_.failure(); !failure) fail(failure.error());
      if (joins_ && host_.try_start()) {
        joins_ = false;
        connection_->post(Ready{host_.epoch()});
      }
      for (RequestEvent& event : host_.take_news())
        if (greeted_) connection_->post(News{host_.epoch(), std::move(event)});
      check_times();
      move();
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
    std::array<pollfd, 4> waited{{{options_.stop, POLLIN, 0},
                                  {listener_.get(), POLLIN, 0},
                                  {host_.wake().fd(), POLLIN, 0},
                                  {connection_ ? connection_->fd() : -1, POLLIN, 0}}};
    if (connection_ && connection_->wants_to_write()) waited[3].events |= POLLOUT;
    const int beat = static_cast<int>(deployment_.link.heartbeat_ms);
    poll(waited.data(), waited.size(), joins_ ? 1 : beat);
    if (waited[0].revents != 0) return true;
    if (waited[2].revents != 0) host_.wake().drain();
    if (waited[1].revents != 0) accept();
    return false;
  }

  void accept() {
    Descriptor socket = accept_from(listener_);
    if (!socket) return;
    ControlConnection connection(std::move(socket));
    move();  // the one before may have left
    if (connection_) {
      connection.post(Refusal{ErrorCode::kUnavailable, "another front is connected"});
      std::vector<ControlMessage> ignored;
      (void)connection.move(ignored);  // it may have left already
      return;
    }
    connection_.emplace(std::move(connection));
    heard_ = clock_.now();
  }

  // What the front waits for, and whether it is still there.
  void check_times() {
    if (!connection_) return;
    const Nanoseconds now = clock_.now();
    if (greeted_ && now - reported_ >= deployment_.link.heartbeat_ms * kMillisecond) {
      connection_->post(host_.report());
      reported_ = now;
    }
    if (now - heard_ > deployment_.link.lost_after_ms * kMillisecond)
      drop(format("nothing was heard of it for {} ms (link.lost_after_ms)", deployment_.link.lost_after_ms));
  }

  void move() {
    if (!connection_) return;
    std::vector<ControlMessage> came;
    const Status moved = connection_->move(came);
    if (!came.empty()) heard_ = clock_.now();
    try {
      for (ControlMessage& message : came) take(message);
    } catch (const Error& error) {
      refuse(error.code(), error.message());
    }
    if (connection_ && !moved) drop(moved.error().message());
  }

  void take(ControlMessage& message) {
    if (const auto* greeting = std::get_if<Greeting>(&message)) return greet(*greeting);
    if (!greeted_) throw Error(ErrorCode::kInvalidData, "a front begins with a greeting");
    if (const auto* prepare = std::get_if<Prepare>(&message)) {
      joins_ = false;
      connection_->post(host_.prepare(*prepare));
    } else if (const auto* connect = std::get_if<Connect>(&message)) {
      host_.connect(*connect);
      joins_ = true;
    } else if (std::holds_alternative<Dissolve>(message)) {
      joins_ = false;
      host_.dissolve();
    } else if (auto* submit = std::get_if<Submit>(&message); submit && host_.is_attention()) {
      host_.submit(std::move(submit->request));
    } else if (const auto* cancel = std::get_if<Cancel>(&message)) {
      host_.cancel(cancel->id);
    } else if (!std::holds_alternative<Beat>(message)) {
      throw Error(ErrorCode::kInvalidData, "this is no message from a front to such a worker");
    }
  }

  void greet(const Greeting& greeting) {
    const Identity& mine = host_.identity();
    if (greeting.rank != options_.rank)
      throw Error(ErrorCode::kInvalidArgument,
                  format("this is rank {}, the front means {}", options_.rank, greeting.rank));
    if (const std::string why = difference(mine, greeting.identity); !why.empty())
      throw Error(ErrorCode::kInvalidArgument, why);
    greeted_ = true;
    connection_->post(host_.welcome());
  }

  // Says why, and goes on to wait for the next front.
  void refuse(ErrorCode code, const std::string& why) {
    connection_->post(Refusal{code, why});
    std::vector<ControlMessage> ignored;
    (void)connection_->move(ignored);  // last words; it may have left already
    drop("refused: " + why);
  }

  void drop(const std::string& why) {
    if (greeted_)
      say(format("front     is gone: {}", why));
    else
      say(format("refused   a connection: {}", why));
    connection_.reset();
    greeted_ = joins_ = false;
    host_.dissolve();
  }

  [[noreturn]] void fail(const Error& error) {
    if (connection_) refuse(error.code(), error.message());
    throw error;
  }

  const Deployment& deployment_;
  const RoleOptions& options_;
  WorkerHost host_;
  const WorkerPlace& place_;
  Descriptor listener_;
  RealClock clock_;
  std::optional<ControlConnection> connection_;
  bool greeted_ = false;  // and found to be of this deployment
  bool joins_ = false;    // peers are to be heard before the worker can run
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
