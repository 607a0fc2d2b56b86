// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Traffic for tests of transports: every worker talks to every other at once, each from a thread of its own.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "base/rng.h"
#include "tests/transport/worker.h"
#include "transport/transport.h"

namespace tandem {

// One worker of many threads: sends messages to every other and receives as many from each, a few under way at a time.
// A message starts with its number and has a length that both sides can tell.
class Exchange {
 public:
  Exchange(TestWorker& worker, std::uint64_t messages)
      : worker_(worker), messages_(messages), flows_(static_cast<std::size_t>(worker.transport().peers())) {}

  void run() {
    const PeerRank me = worker_.transport().rank();
    std::uint64_t left = 2 * messages_ * (flows_.size() - 1);
    while (left > 0 && !testing::Test::HasFailure()) {
      for (PeerRank peer = 0; peer < worker_.transport().peers(); ++peer) {
        if (peer != me) post(peer);
      }
      for (const TransportEvent& event : worker_.events(1)) {
        finish(event);
        --left;
      }
    }
  }

 private:
  static constexpr std::size_t kWindow = 4;
  struct Flow {
    std::uint64_t sends = 0, receives = 0, received = 0;
    std::array<bool, kWindow> sending = {};
  };
  static std::size_t length(PeerRank from, PeerRank to, std::uint64_t number) {
    return 8 + mix64(static_cast<std::uint64_t>(from * 1000 + to * 100) + number) % (TestWorker::kSlotBytes - 8);
  }
  static std::size_t send_slot(PeerRank peer, std::size_t i) {
    return static_cast<std::size_t>(peer) * 2 * kWindow + i;
  }
  static std::size_t receive_slot(PeerRank peer, std::uint64_t number) {
    return send_slot(peer, kWindow + number % kWindow);
  }

  void post(PeerRank peer) {
    Flow& flow = flows_[static_cast<std::size_t>(peer)];
    for (; flow.receives < messages_ && flow.receives < flow.received + kWindow; ++flow.receives) {
      ASSERT_TRUE(worker_.receive(peer, receive_slot(peer, flow.receives)));
    }
    for (std::size_t i = 0; i < kWindow; ++i) {
      if (flow.sending[i] || flow.sends == messages_) continue;
      const std::size_t bytes = length(worker_.transport().rank(), peer, flow.sends);
      std::memcpy(worker_.slot(send_slot(peer, i)).data(), &flow.sends, sizeof flow.sends);
      ASSERT_TRUE(worker_.transport().post_send(peer, worker_.slot(send_slot(peer, i), bytes), i));
      flow.sending[i] = true;
      ++flow.sends;
    }
  }

  void finish(const TransportEvent& event) {
    Flow& flow = flows_[static_cast<std::size_t>(event.peer)];
    if (event.kind == TransportEvent::Kind::kSent) {
      ASSERT_LT(event.operation, kWindow);
      ASSERT_TRUE(std::exchange(flow.sending[event.operation], false)) << event;
      return;
    }
    const std::uint64_t number = flow.received++;
    const std::size_t slot = receive_slot(event.peer, number);
    ASSERT_EQ(event, received(event.peer, slot, length(event.peer, worker_.transport().rank(), number)));
    ASSERT_EQ(std::memcmp(worker_.slot(slot).data(), &number, sizeof number), 0) << number;
  }

  TestWorker& worker_;
  const std::uint64_t messages_;
  std::vector<Flow> flows_;  // per peer
};

}  // namespace tandem
