// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "roles/role.h"

#include <poll.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "base/format.h"
#include "roles/deployment_engine.h"
#include "roles/role_service.h"
#include "roles/visitors.h"
#include "roles/worker_world.h"

namespace tandem {
namespace {

constexpr int kWaitMs = 500;  // at most: visitors have times

class Role {
 public:
  Role(const Deployment& deployment, const RoleOptions& options)
      : deployment_(deployment),
        options_(options),
        credentials_(credentials_of(deployment)),
        world_([this] { wake_.wake(); }, options.endpoints),
        service_(deployment, options.rank, load_worker(deployment, options.rank, options.observer), world_,
                 options.make_constraint, options.say),
        place_(*deployment.find(options.rank)),
        listener_(listen_on(place_.host, place_.port)),
        visitors_(credentials_.get(), deployment.link.lost_after_ms * kMillisecond,
                  [this](const std::string& why) { say("refused   a connection: " + why); }) {}

  void serve() {
    const Welcome welcome = service_.welcome();
    say(format("ready     {} on {}:{}, {} weights, {}", worker_name(deployment_, options_.rank), place_.host,
               place_.port, mebibytes(welcome.weight_bytes), welcome.backend));
    while (!wait()) {
      service_.turn();
      const Nanoseconds now = world_.clock().now();
      for (Visitors::Guest& guest : visitors_.move(now)) {
        auto channel = std::make_unique<ControlConnection>(std::move(guest.connection));
        if (const Status taken = service_.greet(std::move(channel), guest.said); !taken)
          visitors_.tell_refused(taken.error().message(), now);
      }
    }
    service_.end();
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
    std::vector<pollfd> waited{{options_.stop, POLLIN, 0}, {listener_.get(), POLLIN, 0}, {wake_.fd(), POLLIN, 0}};
    if (const ControlChannel* front = service_.front()) waited.push_back({front->fd(), front->events(), 0});
    visitors_.wait_for(waited);
    const int beat = static_cast<int>(std::min<std::int64_t>(deployment_.link.heartbeat_ms, kWaitMs));
    poll(waited.data(), waited.size(), service_.joins() ? 1 : beat);
    if (waited[0].revents != 0) return true;
    if (waited[2].revents != 0) wake_.drain();
    if (waited[1].revents != 0) visitors_.accept(listener_, world_.clock().now());
    return false;
  }

  const Deployment& deployment_;
  const RoleOptions& options_;
  const std::shared_ptr<const Credentials> credentials_;
  WakePipe wake_;
  MachineWorld world_;
  RoleService service_;
  const WorkerPlace& place_;
  Descriptor listener_;
  Visitors visitors_;
};

}  // namespace

void run_role(RoleKind kind, const Deployment& deployment, const RoleOptions& options) {
  check_supported(deployment, options.insecure);
  const auto attention = static_cast<std::int32_t>(deployment.attention.size());
  const bool fits = deployment.find(options.rank) && (options.rank < attention) == (kind == RoleKind::kAttention);
  if (!fits) {
    const std::int32_t first = kind == RoleKind::kAttention ? 0 : attention;
    const auto count =
        static_cast<std::int32_t>((kind == RoleKind::kAttention ? deployment.attention : deployment.ffn).size());
    throw Error(ErrorCode::kInvalidArgument,
                format("rank is {}, {} workers of deployment {} have {} … {} (--rank)", options.rank,
                       kind == RoleKind::kAttention ? "attention" : "FFN", deployment.name, first, first + count - 1));
  }
  Role(deployment, options).serve();
}

}  // namespace tandem
