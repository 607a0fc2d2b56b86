// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Who takes part in a deployment, and what becomes of its requests: all that a front decides, without its thread and
// sockets. Time, channels and random numbers are handed in, so that the simulator drives the very same code.
//
// Each time who takes part changes a new epoch begins: all workers drop what ran and meet again, and requests that had
// not ended are sent again with the answer they have, so that a stream goes on where it was. Workers of an earlier
// epoch are not listened to. Every FFN worker or one of its replicas has to be there, and one attention worker; who is
// missing is tried again and again, and requests wait for it for link.repair_ms_max, then end as unavailable with the
// reason. Of an FFN worker and its replicas the first usable one takes the seat, the others stand by with their weights
// loaded: when it is lost one of them takes its place at once, and when it comes back it stands by, without a pause.
//
// An attention worker that is drained gives its requests up one after the other, each with its KV, which passes through
// the front to the worker that has fewest; meanwhile all the others run. When it has none, the rest meets without it.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/json.h"
#include "deploy/deployment.h"
#include "engine/worker/event_stream.h"
#include "roles/control_channel.h"
#include "roles/control_message.h"
#include "roles/front_peer.h"
#include "roles/pending_requests.h"
#include "roles/straggler_watch.h"

namespace tandem {

// What is not its own.
struct MembershipWorld {
  const Clock& clock;
  ControlDialer& dialer;
  std::function<std::uint64_t()> random_number;      // that nobody can guess
  std::function<void(const std::string&)> say = {};  // a line of what happens; within turn() and obey()
};

class Membership {
 public:
  // Everything named must outlive it.
  Membership(const Deployment& deployment, const Identity& identity, MembershipWorld world);

  // ---- one thread

  // Does all that can be done now: to be called whenever a channel has moved, requests or cancels have come, and at
  // least every link.heartbeat_ms. has_moved: whether something may have come through a channel since the last turn, so
  // that the others are not asked; none: they all are.
  void turn(const std::function<bool(const ControlChannel&)>& has_moved = {});
  // What an operator wants. A change of who takes part begins at once; status tells when it is done. Throws Error: why
  // not.
  Told obey(const Order& order);

  // ---- any thread

  void submit(Request request, std::int32_t rank, std::shared_ptr<EventStream> events);  // ends with an event
  void cancel(RequestId id);
  std::int64_t outstanding(std::int32_t rank) const { return pending_.count_of(rank); }
  // By rank, attention workers first, replicas last; as many as long as this lives.
  const std::vector<std::unique_ptr<FrontPeer>>& peers() const { return peers_; }
  std::size_t attention_workers() const { return attention_workers_; }
  std::uint32_t epoch() const { return epoch_; }           // of what runs now, or ran last
  std::int64_t formations() const { return formations_; }  // how often the workers have met
  // By orders to drain: requests, and blocks of their KV.
  std::int64_t moved_requests() const { return moved_requests_; }
  std::int64_t moved_pages() const { return moved_pages_; }

  struct Standing {
    bool formed_once = false;      // it runs, or has run
    std::optional<Error> failure;  // what keeps it from running for the first time, and does not change by itself
    std::string missing;           // who, and why
  };
  Standing standing() const;
  // What is submitted from now on ends as cancelled.
  void close();
  // And so does all that was. After the last turn.
  void end_all();

 private:
  enum class Phase { kApart, kForming, kFormed };

  void say(const std::string& line) const;
  void move(FrontPeer& peer);
  void take(FrontPeer& peer, ControlMessage& message);
  void refused(FrontPeer& peer, const Refusal& refusal);
  void welcomed(FrontPeer& peer, const Welcome& welcome);
  void fail_start(Error error);
  void lose(FrontPeer& peer, const std::string& why);

  void dissolve();
  // Who would take part now, by seat; null: nobody is usable.
  std::vector<FrontPeer*> seated() const;
  bool is_held(std::int32_t seat) const;  // in the epoch that runs or is being formed
  bool can_form() const;
  void form();
  void newcomer(const FrontPeer& peer);
  void leave_slow_behind();
  void no_longer_slow(FrontPeer& peer);
  void introduce();
  void finish_forming();

  struct Move {
    RequestId id = 0;
    std::int32_t from = 0, to = 0;  // ranks
    PageOrder order = {};           // of its KV
    bool left = false;              // all of it is here, and perhaps not sent on
  };
  bool drains(const FrontPeer& peer) const { return peer.drained() && peer.takes_part; }
  void move_requests();
  void begin_moves(FrontPeer& from);
  std::vector<bool> who_takes_requests() const;
  std::vector<Move>::iterator find_move(const FrontPeer& from, RequestId id);
  void pass_on(FrontPeer& from, Page& page);
  void moved(const FrontPeer& from, RequestId id);

  void send_requests();
  void take_cancels();
  void check_times();
  void look_for_stragglers(Nanoseconds now);
  std::string who_is_slow() const;  // and why; empty: nobody
  void set_aside(FrontPeer& peer);
  void set_drained(FrontPeer& peer, bool drained);
  void check_drain(const FrontPeer& peer) const;
  OrderedJson status() const;
  void tell_missing(Nanoseconds now);

  const Deployment& deployment_;
  const Identity identity_;
  const MembershipWorld world_;
  const std::size_t attention_workers_;
  std::vector<std::unique_ptr<FrontPeer>> peers_;
  PendingRequests pending_;
  Phase phase_ = Phase::kApart;
  std::atomic<std::uint32_t> epoch_ = 0;
  std::atomic<std::int64_t> formations_ = 0, moved_requests_ = 0, moved_pages_ = 0;
  Nanoseconds lost_at_ = 0, forming_since_ = 0;
  std::optional<Nanoseconds> suspicious_since_;  // a hand-over has failed, and nobody is gone
  std::vector<Move> moves_;                      // under way
  StragglerWatch watch_;

  mutable std::mutex mutex_;  // guards what follows
  std::vector<RequestId> cancels_;
  Standing standing_;
  bool given_up_ = false;  // who waits has waited long enough; until the deployment runs again
  bool closed_ = false;
};

}  // namespace tandem
