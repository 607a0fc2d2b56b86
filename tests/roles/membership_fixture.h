// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A front's membership over scripted workers, on a clock that the test moves.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "base/format.h"
#include "roles/front_peer.h"
#include "roles/membership.h"
#include "tests/base/error_of.h"
#include "tests/roles/scripted_workers.h"

namespace tandem {

class MembershipTest : public testing::Test {
 protected:
  // Makes a front of so many workers, which all are there, with ranks 0 …, attention workers first; replicas are all
  // of the first FFN worker.
  void make(std::int32_t attention, std::int32_t ffn, std::int32_t replicas = 0) {
    clock_.advance_to(1'000 * kMillisecond);  // no machine's clock is at its beginning
    deployment_.name = "test";
    deployment_.link.heartbeat_ms = 500;
    deployment_.link.lost_after_ms = 5'000;
    deployment_.link.repair_ms_max = 20'000;
    identity_ = {.deployment = "test", .layout = format("{}A{}F", attention, ffn), .numbers = "", .links = "open"};
    for (std::int32_t rank = 0; rank < attention + ffn + replicas; ++rank) {
      (rank < attention ? deployment_.attention : deployment_.ffn)
          .push_back({.rank = rank,
                      .host = "10.0.0.1",
                      .port = 7000 + rank,
                      .devices = {},
                      .replica_of = rank < attention + ffn ? -1 : attention});
      workers_.all.push_back({.identity = identity_, .rank = rank, .says_rank = rank});
    }
    membership_ = std::make_unique<Membership>(
        deployment_, identity_,
        MembershipWorld{.clock = clock_, .dialer = workers_, .random_number = [this] { return ++random_; }});
  }
  ScriptedWorker& worker(std::int32_t rank) { return workers_.all[static_cast<std::size_t>(rank)]; }

  // Until all that follows from what was done is done.
  void settle() {
    for (int i = 0; i < 12; ++i) {
      membership_->turn();
      for (ScriptedWorker& worker : workers_.all) worker.answer();
    }
  }
  // Time passes; workers that answer report meanwhile.
  void pass(std::int64_t ms) {
    for (const Nanoseconds end = clock_.now() + ms * kMillisecond; clock_.now() < end;) {
      clock_.advance_to(std::min(end, clock_.now() + 100 * kMillisecond));
      for (const ScriptedWorker& worker : workers_.all)
        if (worker.answers && worker.answered > 0) worker.say(Report{});
      settle();
    }
  }
  void make_formed(std::int32_t attention, std::int32_t ffn, std::int32_t replicas = 0) {
    make(attention, ffn, replicas);
    settle();
    ASSERT_EQ(membership_->formations(), 1);
  }

  void submit(RequestId id, std::int32_t rank) {
    Request request;
    request.id = id;
    request.prompt = {1, 2, 3};
    membership_->submit(std::move(request), rank, events_);
  }
  void tell(std::int32_t rank, std::uint32_t epoch, RequestEvent event) {
    worker(rank).say(News{epoch, std::move(event)});
  }
  static RequestEvent tokens(RequestId id, const std::vector<std::int32_t>& ids,
                             FinishReason finish = FinishReason::kNone) {
    RequestEvent event;
    event.id = id;
    for (const std::int32_t token : ids) event.tokens.push_back({.id = token});
    event.finish = finish;
    return event;
  }
  std::vector<RequestEvent> news() {
    std::vector<RequestEvent> all;
    while (std::optional<RequestEvent> event = events_->pop(0)) all.push_back(std::move(*event));
    return all;
  }
  // What the worker was sent of requests on the channel that it has now.
  std::vector<RequestId> submitted(std::int32_t rank) {
    std::vector<RequestId> ids;
    for (const Submit& submit : worker(rank).wire->all<Submit>()) ids.push_back(submit.request.id);
    return ids;
  }
  std::uint32_t last_epoch(std::int32_t rank) {
    const std::vector<Prepare> prepared = worker(rank).wire->all<Prepare>();
    return prepared.empty() ? 0 : prepared.back().epoch;
  }
  std::string state(std::int32_t rank) {
    return status()["workers"][static_cast<std::size_t>(rank)]["state"].get<std::string>();
  }
  OrderedJson status() { return OrderedJson::parse(membership_->obey({.kind = OrderKind::kStatus}).json); }
  Error refusal_of(OrderKind kind, std::int32_t rank) {
    return error_of([&] { membership_->obey({.kind = kind, .rank = rank}); });
  }

  Deployment deployment_;
  Identity identity_;
  VirtualClock clock_;
  std::uint64_t random_ = 100;
  ScriptedWorkers workers_;
  std::unique_ptr<Membership> membership_;
  std::shared_ptr<EventStream> events_ = std::make_shared<EventStream>();
};

}  // namespace tandem
