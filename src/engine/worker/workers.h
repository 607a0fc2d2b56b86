// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What an engine needs of its workers, wherever they run: threads of this process (engine/local_workers.h), or
// processes of a deployment that this one is the front of.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/worker/event_stream.h"
#include "engine/worker/worker_config.h"
#include "sched/scheduler.h"

namespace tandem {

// Takes requests and answers them: an attention worker, or what stands for one of another process. Any thread.
class RequestTaker {
 public:
  virtual ~RequestTaker() = default;
  // Always ends with an event that has a finish reason.
  virtual void submit(Request request, std::shared_ptr<EventStream> events) = 0;
  virtual void cancel(RequestId id) = 0;
  // Requests given to it that have not ended.
  virtual std::int64_t outstanding() const = 0;
  // False for one that is known to be gone: others are asked first.
  virtual bool available() const { return true; }
  virtual const WorkerStats& stats() const = 0;
  virtual Scheduler::Load load() const = 0;  // as of the last step, or of what was last heard
};

// How workers that are processes stand together.
struct Formation {
  std::uint32_t epoch = 0;                              // of what runs now, or ran last
  std::int64_t formations = 0;                          // how often they have met and run
  std::int32_t attention_present = 0, ffn_present = 0;  // connected and not drained
};

class Workers {
 public:
  virtual ~Workers() = default;
  // Of attention workers, by rank; at least one. The same as long as this lives, like those of FFN workers.
  virtual std::vector<RequestTaker*> takers() const = 0;
  virtual std::vector<const WorkerStats*> ffn_stats() const = 0;
  virtual std::int64_t weight_bytes() const = 0;
  virtual std::string describe_backend() const = 0;
  // How decoding steps go between workers of GPUs; empty where it goes without saying.
  virtual std::string describe_hand_overs() const { return {}; }
  // Nothing where they are threads of this process.
  virtual std::optional<Formation> formation() const { return std::nullopt; }
  // Waits until nothing runs any more; what had not ended ends as cancelled.
  virtual void stop() = 0;
};

}  // namespace tandem
