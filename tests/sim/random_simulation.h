// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A random deployment with random trouble, all of it from one seed: layouts up to 3A3F, little cache, lost frames,
// cancellations, preemptions, drafts right and wrong.
#pragma once

#include <memory>

#include "sim/simulation.h"

namespace tandem {

SimulationConfig random_config(std::uint64_t seed);
// Such a deployment with its agenda, ready to run.
std::unique_ptr<Simulation> random_simulation(const SimulationConfig& config);

}  // namespace tandem
