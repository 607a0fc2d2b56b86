// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The process of the front in a simulated deployment: its membership (roles/membership.h), which dials over a network
// that fails.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "base/rng.h"
#include "roles/membership.h"
#include "sim/fleet/fleet_model.h"
#include "sim/fleet/fleet_network.h"
#include "sim/fleet/turns.h"

namespace tandem {

class FrontProcess {
 public:
  FrontProcess(const FleetModel& model, Stage& stage, FleetNetwork& network, Rng& rng,
               const std::function<void(const std::string&)>& say)
      : held_(stage),
        network_(network),
        rank_(static_cast<std::int32_t>(model.workers.size())),
        dialer_(network, rank_),
        turns_(stage, held_,
               [this] {
                 membership_.turn();
                 return 50 * kMillisecond;
               }),
        membership_(
            model.deployment, model.workers.front().identity,
            {.clock = stage.clock(), .dialer = dialer_, .random_number = [&rng] { return rng.next(); }, .say = say}) {
    network.appear(rank_, held_, nullptr, [this] { turns_.wake(); });
    turns_.wake();
  }
  ~FrontProcess() { vanish(true); }

  void vanish(bool silent) {
    if (!std::exchange(vanished_, true)) network_.vanish(rank_, silent);
  }
  StageProcess& held() { return held_; }
  Membership& membership() { return membership_; }
  void wake() { turns_.wake(); }

 private:
  class Dialer final : public ControlDialer {
   public:
    Dialer(FleetNetwork& network, std::int32_t self) : network_(network), self_(self) {}
    std::unique_ptr<ControlChannel> dial(const WorkerPlace& place, std::string&) override {
      return network_.dial(self_, place.rank);
    }

   private:
    FleetNetwork& network_;
    const std::int32_t self_;
  };

  StageProcess held_;
  FleetNetwork& network_;
  const std::int32_t rank_;
  Dialer dialer_;
  Turns turns_;
  Membership membership_;
  bool vanished_ = false;
};

}  // namespace tandem
