// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The front of a deployment: the one place that decides who takes part. It connects to every worker's control port,
// checks that it is of the same deployment, hands the workers each other's addresses, gives requests to attention
// workers and passes their news on.
//
// Each time who takes part changes a new epoch begins: all workers drop what ran and meet again, and requests that had
// not ended are sent again with the answer they have, so that a stream goes on where it was. Workers of an earlier
// epoch are not listened to. All FFN workers have to be there, and one attention worker; who is missing is tried again
// and again, and requests wait for it for link.repair_ms_max, then end as unavailable with the reason.
//
// A thread of its own does all that; the functions here may be called by any.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "deploy/deployment.h"
#include "engine/workers.h"
#include "roles/control_message.h"

namespace tandem {

struct FrontOptions {
  bool insecure = false;
  Nanoseconds patience = 600'000'000'000;            // until all workers are there for the first time
  std::function<bool()> give_up = {};                // asked while waiting for that; true ends it
  std::function<void(const std::string&)> say = {};  // a line of what happens; on the front's thread
};

class Front : public Workers {
 public:
  // Waits until the deployment runs. deployment must outlive the front. Throws Error: with a worker's refusal, for one
  // of another deployment, kUnavailable with those that were missing.
  static std::unique_ptr<Front> connect(const Deployment& deployment, const Identity& identity, FrontOptions options);

  virtual std::int64_t kv_tokens() const = 0;            // of each attention worker
  virtual Welcome welcome(std::int32_t rank) const = 0;  // as last heard
  virtual std::uint32_t epoch() const = 0;               // of what runs now, or ran last
};

}  // namespace tandem
