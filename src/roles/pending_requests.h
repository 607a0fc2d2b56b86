// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The requests a front has taken and that have not ended, with what of their answers has been told. Any thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "engine/worker/event_stream.h"
#include "sched/request.h"

namespace tandem {

class PendingRequests {
 public:
  static constexpr std::int32_t kNobody = -1;
  static constexpr std::int32_t kRetriesMax = 3;

  void add(Request request, std::int32_t rank, std::shared_ptr<EventStream> events);
  // Nobody wants the request any more: it is not sent again. Which attention worker has it and has to be told; kNobody:
  // none has, and it has ended.
  std::int32_t cancel(RequestId id);
  // Requests meant for the worker.
  std::int64_t count_of(std::int32_t rank) const;
  bool empty() const;

  // Those that no worker has, each now taken to be with the worker it is meant for, or where that is not present with
  // the present one that has the fewest.
  struct Sending {
    std::int32_t rank;
    Request request;
  };
  std::vector<Sending> take_unsent(const std::vector<bool>& present);
  // The present worker that the fewest are meant for; kNobody: none is present.
  std::int32_t least_busy(const std::vector<bool>& present) const;
  // One of those that a worker has and that is to go to another, the oldest that is not on its way already; nothing:
  // there is none.
  std::optional<RequestId> begin_move(std::int32_t from);
  // It has left, and is now meant for the other. False: nobody wants it any more, and it has ended.
  bool end_move(RequestId id, std::int32_t to);
  // Nobody has any of them any more. Those that were cancelled end.
  void unsend_all();

  // Passes news on and remembers what they told. False for news of a link that failed: the request is held back until
  // unsend_all, at most kRetriesMax times, and then ends with them.
  bool pass_on(RequestEvent event);
  // Ends requests with what they have.
  void end(RequestId id, FinishReason finish, const Status& status);
  void end_all(FinishReason finish, const Status& status);

 private:
  struct Pending {
    Request request;  // answer: what has been told
    std::shared_ptr<EventStream> events;
    std::int32_t meant_for = 0;
    bool sent = false;
    bool moves = false;  // it is to leave the worker that has it
    bool held_back = false;
    bool cancelled = false;
    std::int32_t retries = 0;
    std::optional<std::int64_t> cached_tokens = {};  // as first told: when it is sent again it finds itself
  };

  std::int32_t fewest(const std::vector<bool>& present) const;  // mutex_ is held
  static void push_end(const Pending& pending, FinishReason finish, const Status& status);

  mutable std::mutex mutex_;
  std::map<RequestId, Pending> pending_;
};

}  // namespace tandem
