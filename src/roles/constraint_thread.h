// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Makes the constraints of requests that come with what they were made from, on a thread of its own: to compile a
// grammar may take seconds, and the first one waits for the model's vocabulary, while the loop of the control
// connection has to answer within link.lost_after_ms and the worker's own thread computes for everybody. Requests
// without a constraint do not pass here, so they are not held up.
//
// A request that goes on has its constraint taken to the end of the answer that was told, here too: one token after the
// other, as they were committed where they were drawn. They are the model's: whoever asks has checked them.
//
// One thread calls it; it has its own, which begins with the first request.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "sched/request.h"

namespace tandem {

// Throws Error for what cannot be made. Called by one thread.
using ConstraintFactory = std::function<std::shared_ptr<TokenConstraint>(const ConstraintRecipe&)>;

class ConstraintThread {
 public:
  // on_made: called on the thread when take_made has something. factory: none where nobody can make one, which ends
  // requests as unsupported.
  ConstraintThread(ConstraintFactory factory, std::function<void()> on_made);
  ~ConstraintThread();  // waits for what is being made

  void make(Request request, ConstraintRecipe recipe);
  struct Made {
    Request request;
    Status status;  // why it has no constraint
  };
  std::vector<Made> take_made();
  std::int64_t waiting() const;  // that have not been made yet, but for the one that is being made
  // True: the request was here and is no more.
  bool cancel(RequestId id);
  // Nobody waits any more for what is here.
  void drop_all();

 private:
  struct Job {
    Request request;
    ConstraintRecipe recipe;
  };
  void run();
  Status constrain(Job& job) const;

  const ConstraintFactory factory_;
  const std::function<void()> on_made_;
  std::thread thread_;

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::deque<Job> jobs_;
  std::optional<RequestId> making_;  // none: nothing, or what nobody waits for
  std::vector<Made> made_;
  bool stopping_ = false;
};

}  // namespace tandem
