// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What can be said about a configuration or a request before anything runs: does it hold together, is it within the
// limits. Whether there is room at this moment is the scheduler's business.
#pragma once

#include "sched/scheduler.h"

namespace tandem {

// Throws Error.
void check_config(const SchedulerConfig& config, const KvSpace::Config& kv);
Status check_request(const Request& request, const SchedulerConfig& config, std::int64_t kv_blocks);

}  // namespace tandem
