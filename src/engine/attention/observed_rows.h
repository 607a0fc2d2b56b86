// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Shows an observer what a step has computed, position by position, wherever operators keep it: copied for the host,
// after a wait for all that was given to the backend.
#pragma once

#include "engine/worker/observer.h"
#include "model/model.h"
#include "sched/batch.h"

namespace tandem {

// logits: of the plan's rows that need some, in order.
void show_logits(Observer& observer, Backend& backend, const MicroBatch& plan, const Tensor& logits);
// choices: of all rows of the plan, in a routed layer.
void show_choices(Observer& observer, Backend& backend, const MicroBatch& plan, std::int32_t layer,
                  const HandOver& choices);

}  // namespace tandem
