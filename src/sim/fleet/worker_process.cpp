// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "sim/fleet/worker_process.h"

#include <optional>
#include <utility>

namespace tandem {

namespace {

// Endpoints take a while, now and then a long one.
class Endpoints final : public EndpointMaker {
 public:
  Endpoints(Stage& stage, StageProcess& process, FleetNetwork& network, FleetNetwork::Process number, Rng& rng,
            std::function<void()> wake)
      : stage_(stage), process_(process), network_(network), number_(number), rng_(rng), wake_(std::move(wake)) {}

  void begin(PeerRank rank, std::int32_t peers, const UcxConfig& config) override {
    begun_ = {rank, peers, config.message_bytes_max};
    const Nanoseconds most = rng_.below(50) == 0 ? 4 * kSecond : 30 * kMillisecond;
    done_at_ = stage_.now() + static_cast<Nanoseconds>(rng_.below(static_cast<std::uint64_t>(most)));
    stage_.at(
        done_at_,
        [alive = std::weak_ptr(alive_), this] {
          if (!alive.expired()) wake_();
        },
        &process_);
  }
  bool busy() const override { return begun_.has_value(); }
  std::unique_ptr<MeetingTransport> take() override {
    if (!begun_ || stage_.now() < done_at_) return nullptr;
    const Begun begun = *std::exchange(begun_, std::nullopt);
    return network_.make_endpoint(number_, begun.rank, begun.peers, begun.message_bytes_max);
  }
  Status overdue() const override { return Status::ok(); }

 private:
  struct Begun {
    PeerRank rank;
    std::int32_t peers;
    std::size_t message_bytes_max;
  };
  Stage& stage_;
  StageProcess& process_;
  FleetNetwork& network_;
  const FleetNetwork::Process number_;
  Rng& rng_;
  const std::function<void()> wake_;
  std::optional<Begun> begun_;
  Nanoseconds done_at_ = 0;
  const std::shared_ptr<int> alive_ = std::make_shared<int>();
};

class World final : public WorkerWorld {
 public:
  // number: of the process, of all that there have been.
  World(Stage& stage, StageProcess& process, FleetNetwork& network, std::int32_t rank, Rng& rng, std::int64_t number,
        std::function<void()> wake)
      : stage_(stage),
        process_(process),
        rng_(rng),
        number_(number),
        wake_(std::move(wake)),
        endpoints_(stage, process, network, rank, rng, wake_) {}

  const Clock& clock() const override { return stage_.clock(); }
  EndpointMaker& endpoints() override { return endpoints_; }
  std::unique_ptr<WorkerThread> start(std::function<void()> run) override {
    struct Thread final : WorkerThread {
      Thread(Stage& stage, StageProcess& process, std::function<void()> run) : actor(stage, process, std::move(run)) {}
      Actor actor;
    };
    return std::make_unique<Thread>(stage_, process_, std::move(run));
  }
  void wake() override { wake_(); }
  void fill_random(std::span<std::byte> bytes) override {
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(rng_.below(256));
  }
  std::int64_t process() const override { return number_; }

 private:
  Stage& stage_;
  StageProcess& process_;
  Rng& rng_;
  const std::int64_t number_;
  const std::function<void()> wake_;
  Endpoints endpoints_;
};

}  // namespace

WorkerProcess::WorkerProcess(const FleetModel& model, std::int32_t rank, Stage& stage, FleetNetwork& network, Rng& rng,
                             std::int64_t number, std::function<void(const std::string&)> say)
    : held_(stage),
      stage_(stage),
      network_(network),
      rank_(rank),
      link_(model.deployment.link),
      say_(std::move(say)),
      turns_(stage, held_, [this] { return turn(); }),
      world_(std::make_unique<World>(stage, held_, network, rank, rng, number, [this] { turns_.wake(); })) {
  network.appear(
      rank, held_, [this](std::unique_ptr<ControlChannel> channel) { visit(std::move(channel)); },
      [this] { turns_.wake(); });
  service_ = std::make_unique<RoleService>(model.deployment, rank, model.workers[static_cast<std::size_t>(rank)],
                                           *world_, ConstraintFactory{}, say_);
  turns_.wake();
}

void WorkerProcess::vanish(bool silent) {
  if (!service_) return;
  network_.vanish(rank_, silent);
  visitors_.clear();
  service_.reset();
}

void WorkerProcess::visit(std::unique_ptr<ControlChannel> channel) {
  visitors_.push_back({std::move(channel), stage_.now()});
  turns_.wake();
}

Nanoseconds WorkerProcess::turn() {
  service_->turn();
  for (Visitor& visitor : std::exchange(visitors_, {})) {
    std::vector<ControlMessage> said;
    const Status moved = visitor.channel->move(said);
    if (!said.empty()) {
      const Status taken = service_->greet(std::move(visitor.channel), said);
      if (!taken) say_("refuses a front: " + taken.error().message());
    } else if (moved && stage_.now() - visitor.since < link_.lost_after_ms * kMillisecond) {
      visitors_.push_back(std::move(visitor));
    }
  }
  return service_->joins() ? kMillisecond : link_.heartbeat_ms * kMillisecond;
}

}  // namespace tandem
