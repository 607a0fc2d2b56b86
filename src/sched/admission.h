// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What can be said about a configuration or a request before anything runs: does it hold together, is it within the
// limits. Whether there is room at this moment is the scheduler's business.
#pragma once

#include "sched/scheduler.h"

namespace tandem {

// Throws Error.
void check_config(const SchedulerConfig& config, const KvSpace::Config& kv);
// A request may bring tokens of its answer, which are checked like those of its prompt.
Status check_request(const Request& request, const SchedulerConfig& config, std::int64_t kv_blocks);

// Refuses sampling parameters that mean nothing: NaN, probabilities outside their range, ids outside the vocabulary.
Status check_sampling(const SamplingParams& sampling, std::int32_t vocab);

}  // namespace tandem
