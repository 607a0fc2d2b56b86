// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The front of a deployment as this process has it: membership.h decides, here are its thread, its connections to every
// worker's control port, and what an engine asks for. It checks that workers are of the same deployment, hands them
// each other's addresses, gives requests to attention workers and passes their news on.
//
// A thread of its own does all that; the functions here may be called by any.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "deploy/deployment.h"
#include "engine/worker/workers.h"
#include "roles/control_message.h"

namespace tandem {

struct FrontOptions {
  bool insecure = false;
  Nanoseconds patience = 600 * kSecond;              // until all workers are there for the first time
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
