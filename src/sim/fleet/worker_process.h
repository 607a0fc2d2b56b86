// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The process of a worker in a simulated deployment: its service (roles/role_service.h) and those who visit it, in a
// world of virtual time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/rng.h"
#include "roles/role_service.h"
#include "sim/fleet/fleet_model.h"
#include "sim/fleet/fleet_network.h"
#include "sim/fleet/turns.h"

namespace tandem {

class WorkerProcess {
 public:
  // number: of the process, of all that there have been.
  WorkerProcess(const FleetModel& model, std::int32_t rank, Stage& stage, FleetNetwork& network, Rng& rng,
                std::int64_t number, std::function<void(const std::string&)> say);
  ~WorkerProcess() { vanish(true); }

  // From now on nobody hears of it; what it was is cleared away.
  void vanish(bool silent);
  StageProcess& held() { return held_; }
  Report report() const { return service_->report(); }

 private:
  struct Visitor {
    std::unique_ptr<ControlChannel> channel;
    Nanoseconds since;
  };

  void visit(std::unique_ptr<ControlChannel> channel);
  Nanoseconds turn();

  StageProcess held_;
  Stage& stage_;
  FleetNetwork& network_;
  const std::int32_t rank_;
  const DeploymentLink link_;
  const std::function<void(const std::string&)> say_;
  Turns turns_;
  std::unique_ptr<WorkerWorld> world_;
  std::vector<Visitor> visitors_;
  std::unique_ptr<RoleService> service_;
};

}  // namespace tandem
