// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The network between the processes of a simulated deployment: control channels that lose nothing, as TCP, and the
// endpoints of hand-overs, whose messages it may lose, delay, repeat, damage, or deliver to a process of a later epoch.
// Any two processes can be cut off from each other, one can vanish with or without a word.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "base/rng.h"
#include "roles/control_channel.h"
#include "sim/fleet/stage.h"
#include "transport/meeting_transport.h"

namespace tandem {

// Probabilities for each message between endpoints.
struct MessageFaults {
  double lose = 0, delay = 0, repeat = 0, damage = 0;
  double stale = 0;  // before a message the same one of an earlier epoch comes
  Nanoseconds delay_max = 0;
};

// How often it happened.
struct NetworkCounts {
  std::int64_t messages = 0, lost = 0, delayed = 0, repeated = 0, damaged = 0, stale = 0;
};

class FleetNetwork {
 public:
  using Process = std::int32_t;  // a worker's rank; the front's is one above them
  // Endpoints know each other by seat (deploy/deployment.h), which is not the process where that is a replica.

  FleetNetwork(Stage& stage, std::int32_t processes, Rng& rng);
  ~FleetNetwork();

  MessageFaults faults;
  NetworkCounts counts;
  Nanoseconds latency_min = 20'000;  // up to twice as much

  // ---- processes

  // Somebody has connected to a process that is there.
  using Accept = std::function<void(std::unique_ptr<ControlChannel>)>;
  void appear(Process process, StageProcess& held, Accept accept, std::function<void()> wake);
  // silent: nobody hears of it, as when the machine is lost; else its connections end.
  void vanish(Process process, bool silent);
  // Control messages between the two wait, hand-overs are lost.
  void cut(Process a, Process b);
  void heal(Process a, Process b);
  void heal_all();

  // A channel of process from to the worker of a rank.
  std::unique_ptr<ControlChannel> dial(Process from, Process to);
  std::unique_ptr<MeetingTransport> make_endpoint(Process process, PeerRank seat, std::int32_t peers,
                                                  std::size_t message_bytes_max);

 private:
  class Channel;
  class Endpoint;
  struct Link;
  struct Node {
    StageProcess* held = nullptr;  // null: it is not there
    Accept accept;
    std::function<void()> wake;
    std::int64_t life = 0;  // counts appearances
    bool silent = false;    // it vanished without a word
  };
  using Message = std::vector<std::byte>;
  // Of a frame: from, to, and what its header says of its place in a step.
  using FrameKey = std::tuple<PeerRank, PeerRank, std::uint16_t, std::uint64_t, std::int32_t, std::int32_t>;

  bool is_cut(Process a, Process b) const;
  Nanoseconds latency();
  Nanoseconds random_time(Nanoseconds most);
  void wake(Process process);
  void open(std::shared_ptr<Link> link);
  void send(Endpoint& from, PeerRank to, std::uint64_t address, Message message);
  void deliver(const Endpoint& from, std::uint64_t address, Message message, Nanoseconds due);
  void send_stale(const Endpoint& from, PeerRank to, std::uint64_t address, const Message& message);
  Endpoint* find(std::uint64_t address);
  void forget(Endpoint& endpoint);

  Stage& stage_;
  Rng& rng_;
  std::vector<Node> nodes_;
  std::set<std::pair<Process, Process>> cuts_;
  std::vector<std::shared_ptr<Link>> waiting_links_;  // of those who are cut off
  std::map<std::uint64_t, Endpoint*> endpoints_;
  std::uint64_t last_address_ = 0;
  std::map<FrameKey, std::pair<std::uint32_t, Message>> earlier_;  // by epoch
};

}  // namespace tandem
