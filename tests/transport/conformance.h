// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What every transport must do (the rules of transport/transport.h), written once and run on each.
//
// A transport takes part with a class that has a constructor from a number of peers and endpoint(rank), and
//   INSTANTIATE_TYPED_TEST_SUITE_P(name, TransportConformance, ThatClass);
// It may have why_not(), the reason why this machine cannot run it, for which its tests are skipped.
// Nothing here is about one transport: how many receives it takes, whether it copies, when a send counts as sent.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "tests/transport/exchange.h"
#include "tests/transport/worker.h"

namespace tandem {

using testing::Contains;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

template <class Network>
class TransportConformance : public testing::Test {
 protected:
  // Of a network that needs what not every machine has.
  void SetUp() override {
    if constexpr (requires { Network::why_not(); })
      if (const std::string reason = Network::why_not(); !reason.empty()) GTEST_SKIP() << reason;
  }
  void start(std::int32_t peers) {
    network_ = std::make_unique<Network>(peers);
    for (PeerRank rank = 0; rank < peers; ++rank)
      workers_.push_back(std::make_unique<TestWorker>(network_->endpoint(rank)));
  }
  TestWorker& worker(PeerRank rank) { return *workers_[static_cast<std::size_t>(rank)]; }

  // The first events of one worker while another polls, too, and takes none: a send may count as sent only when the
  // other side has looked.
  std::vector<TransportEvent> events_beside(TestWorker& waits, TestWorker& other) {
    const RealClock clock;
    const Nanoseconds end = clock.now() + kTestWait;
    std::vector<TransportEvent> found;
    while (found.empty() && clock.now() < end) {
      EXPECT_EQ(other.transport().poll({}, 0), 0u);
      found = waits.events(0);
    }
    return found;
  }

 private:
  std::unique_ptr<Network> network_;
  std::vector<std::unique_ptr<TestWorker>> workers_;
};

TYPED_TEST_SUITE_P(TransportConformance);

TYPED_TEST_P(TransportConformance, endpoints_know_who_they_are) {
  this->start(3);
  for (PeerRank rank = 0; rank < 3; ++rank) {
    EXPECT_EQ(this->worker(rank).transport().rank(), rank);
    EXPECT_EQ(this->worker(rank).transport().peers(), 3);
  }
  const TransportCapabilities capabilities = this->worker(0).transport().capabilities();
  EXPECT_GE(capabilities.sends_max, 1);
  EXPECT_GE(capabilities.message_bytes_max, TestWorker::kSlotBytes);
}

TYPED_TEST_P(TransportConformance, message_reaches_a_waiting_receive) {
  this->start(2);
  ASSERT_TRUE(this->worker(1).receive(0, 7));
  ASSERT_TRUE(this->worker(0).send(1, 3, "hello"));
  EXPECT_THAT(this->worker(1).events(1), ElementsAre(received(0, 7, 5)));
  EXPECT_EQ(this->worker(1).text(7, 5), "hello");
  EXPECT_EQ(this->worker(1).slot(7)[5], std::byte{0}) << "the rest of the buffer is left alone";
  EXPECT_THAT(this->worker(0).events(1), ElementsAre(sent(1, 3)));
}

TYPED_TEST_P(TransportConformance, message_waits_for_a_receive) {
  this->start(2);
  ASSERT_TRUE(this->worker(0).send(1, 3, "hello"));
  EXPECT_THAT(this->worker(1).events(0), IsEmpty()) << "nothing was posted to deliver into";
  ASSERT_TRUE(this->worker(1).receive(0, 7));
  EXPECT_THAT(this->worker(1).events(1), ElementsAre(received(0, 7, 5)));
  EXPECT_EQ(this->worker(1).text(7, 5), "hello");
  EXPECT_THAT(this->worker(0).events(1), ElementsAre(sent(1, 3)));
}

TYPED_TEST_P(TransportConformance, messages_stay_in_order) {
  this->start(2);
  // The first finds a receive, the second waits for one, the third waits behind it.
  ASSERT_TRUE(this->worker(1).receive(0, 10));
  for (std::size_t i = 0; i < 3; ++i)
    ASSERT_TRUE(this->worker(0).send(1, i, std::string(i + 1, static_cast<char>('a' + i))));
  ASSERT_TRUE(this->worker(1).receive(0, 11));
  ASSERT_TRUE(this->worker(1).receive(0, 12));
  EXPECT_THAT(this->worker(1).events(3), ElementsAre(received(0, 10, 1), received(0, 11, 2), received(0, 12, 3)));
  EXPECT_EQ(this->worker(1).text(10, 1), "a");
  EXPECT_EQ(this->worker(1).text(11, 2), "bb");
  EXPECT_EQ(this->worker(1).text(12, 3), "ccc");
  EXPECT_THAT(this->worker(0).events(3), UnorderedElementsAre(sent(1, 0), sent(1, 1), sent(1, 2)));
}

TYPED_TEST_P(TransportConformance, receive_is_for_one_sender) {
  this->start(3);
  ASSERT_TRUE(this->worker(2).receive(0, 20));
  ASSERT_TRUE(this->worker(2).receive(1, 21));
  ASSERT_TRUE(this->worker(1).send(2, 1, "from one"));
  EXPECT_THAT(this->worker(2).events(1), ElementsAre(received(1, 21, 8)));
  EXPECT_EQ(this->worker(2).text(21, 8), "from one");
  ASSERT_TRUE(this->worker(0).send(2, 0, "from zero"));
  EXPECT_THAT(this->worker(2).events(1), ElementsAre(received(0, 20, 9)));
  EXPECT_EQ(this->worker(2).text(20, 9), "from zero");
}

TYPED_TEST_P(TransportConformance, long_message_is_truncated) {
  this->start(2);
  ASSERT_TRUE(this->worker(1).receive(0, 5, 4));
  ASSERT_TRUE(this->worker(1).receive(0, 6));
  ASSERT_TRUE(this->worker(0).send(1, 0, "too long"));
  ASSERT_TRUE(this->worker(0).send(1, 1, "next"));
  EXPECT_THAT(this->worker(1).events(2), ElementsAre(truncated(0, 5, 4), received(0, 6, 4)));
  EXPECT_EQ(this->worker(1).text(5, 4), "too ");
  EXPECT_EQ(this->worker(1).slot(5)[4], std::byte{0}) << "written behind the receive";
  EXPECT_EQ(this->worker(1).text(6, 4), "next");
}

TYPED_TEST_P(TransportConformance, message_may_be_empty) {
  this->start(2);
  ASSERT_TRUE(this->worker(0).send(1, 0, ""));
  ASSERT_TRUE(this->worker(0).send(1, 1, "x"));
  ASSERT_TRUE(this->worker(1).transport().post_receive(0, {}, 8));
  ASSERT_TRUE(this->worker(1).transport().post_receive(0, {}, 9));
  EXPECT_THAT(this->worker(1).events(2), ElementsAre(received(0, 8, 0), truncated(0, 9, 0)));
  EXPECT_THAT(this->worker(0).events(2), UnorderedElementsAre(sent(1, 0), sent(1, 1)));
}

TYPED_TEST_P(TransportConformance, sends_in_flight_are_bounded) {
  this->start(3);
  TestWorker& sender = this->worker(0);
  const auto sends_max = static_cast<std::size_t>(sender.transport().capabilities().sends_max);
  ASSERT_LT(sends_max, TestWorker::kSlots);
  for (std::size_t i = 0; i < sends_max; ++i) ASSERT_TRUE(sender.send(1, i, "x")) << i;
  const Status refused = sender.send(1, sends_max, "x");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), ErrorCode::kOutOfResources) << refused.error().message();
  EXPECT_TRUE(sender.send(2, sends_max, "x")) << "another peer has its own bound";

  ASSERT_TRUE(this->worker(2).receive(0, 0));
  EXPECT_THAT(this->events_beside(sender, this->worker(2)), Contains(sent(2, sends_max)));
  for (std::size_t i = 0; i < sends_max; ++i) ASSERT_TRUE(this->worker(1).receive(0, i));
  EXPECT_EQ(this->worker(1).events(sends_max).size(), sends_max) << "what was refused is not delivered";
  EXPECT_EQ(sender.events(sends_max).size(), sends_max);
  EXPECT_TRUE(sender.send(1, 0, "again")) << "reported sends make room";
}

TYPED_TEST_P(TransportConformance, impossible_posts_are_refused) {
  this->start(2);
  TestWorker& one = this->worker(0);
  for (const PeerRank nobody : {-1, 2}) {
    EXPECT_EQ(one.send(nobody, 0, "x").error().code(), ErrorCode::kInvalidArgument);
    EXPECT_EQ(one.receive(nobody, 0).error().code(), ErrorCode::kInvalidArgument);
  }
  EXPECT_THAT(one.events(0), IsEmpty());
}

TYPED_TEST_P(TransportConformance, events_come_one_at_a_time_if_asked) {
  this->start(2);
  for (std::size_t i = 0; i < 3; ++i) ASSERT_TRUE(this->worker(1).receive(0, i));
  for (std::size_t i = 0; i < 3; ++i) ASSERT_TRUE(this->worker(0).send(1, i, "x"));
  for (std::size_t i = 0; i < 3; ++i) {
    TransportEvent event;
    ASSERT_EQ(this->worker(1).transport().poll({&event, 1}, kTestWait), 1u);
    EXPECT_EQ(event, received(0, i, 1));
  }
}

TYPED_TEST_P(TransportConformance, gone_peer_ends_each_operation_once) {
  this->start(3);
  TestWorker& stays = this->worker(0);
  ASSERT_TRUE(stays.receive(1, 1));
  ASSERT_TRUE(stays.receive(1, 2));
  ASSERT_TRUE(stays.receive(1, 3));
  ASSERT_TRUE(stays.receive(2, 4));
  ASSERT_TRUE(stays.send(1, 5, "never read"));
  ASSERT_TRUE(stays.send(1, 6, "never read"));
  ASSERT_TRUE(this->worker(1).send(0, 0, "last words"));
  ASSERT_THAT(this->events_beside(this->worker(1), stays), ElementsAre(sent(0, 0)));
  this->worker(1).leave();

  const std::vector<TransportEvent> events = stays.events(5);
  EXPECT_THAT(events, UnorderedElementsAre(received(1, 1, 10), peer_gone(1, 2), peer_gone(1, 3), peer_gone(1, 5),
                                           peer_gone(1, 6)));
  EXPECT_EQ(stays.text(1, 10), "last words");
  ASSERT_TRUE(this->worker(2).send(0, 0, "here"));
  EXPECT_THAT(stays.events(1), ElementsAre(received(2, 4, 4))) << "the others go on";
}

TYPED_TEST_P(TransportConformance, posts_to_a_gone_peer_fail_at_once_or_end_as_gone) {
  this->start(2);
  TestWorker& stays = this->worker(0);
  this->worker(1).leave();
  std::vector<TransportEvent> expected;
  for (const bool is_send : {true, false}) {
    const std::size_t operation = is_send ? 1 : 2;
    const Status status = is_send ? stays.send(1, operation, "x") : stays.receive(1, operation);
    if (status) {
      expected.push_back(peer_gone(1, operation));
    } else {
      EXPECT_EQ(status.error().code(), ErrorCode::kUnavailable) << status.error().message();
    }
  }
  EXPECT_THAT(stays.events(expected.size()), testing::UnorderedElementsAreArray(expected));
}

TYPED_TEST_P(TransportConformance, poll_waits_no_longer_than_told) {
  this->start(2);
  TransportEvent event;
  const RealClock clock;
  const Nanoseconds start = clock.now();
  EXPECT_EQ(this->worker(0).transport().poll({&event, 1}, 0), 0u);
  EXPECT_EQ(this->worker(0).transport().poll({&event, 1}, 3'000'000), 0u);
  EXPECT_GE(clock.now() - start, 3'000'000);
  EXPECT_LT(clock.now() - start, kTestWait);
}

TYPED_TEST_P(TransportConformance, wake_ends_a_poll) {
  this->start(2);
  Transport& transport = this->worker(0).transport();
  TransportEvent event;
  const RealClock clock;
  const Nanoseconds start = clock.now();
  transport.wake();
  EXPECT_EQ(transport.poll({&event, 1}, 0), 0u) << "a poll that does not wait leaves the wake for one that does";
  EXPECT_EQ(transport.poll({&event, 1}, kTestWait), 0u);
  // Hundreds of races between the wait and the wake; one that is lost costs kTestWait.
  for (int i = 0; i < 300; ++i) {
    std::thread other([&transport] { transport.wake(); });
    EXPECT_EQ(transport.poll({&event, 1}, kTestWait), 0u);
    other.join();
  }
  EXPECT_LT(clock.now() - start, kTestWait);
}

TYPED_TEST_P(TransportConformance, threads_play_ping_pong) {
  this->start(2);
  constexpr std::uint64_t kRounds = 10'000;
  // Each side posts the receive for the answer, sends, and takes its two events, in whatever order they come.
  const auto play = [this](PeerRank rank) {
    TestWorker& worker = this->worker(rank);
    const PeerRank other = 1 - rank;
    std::uint64_t wrong = 0;
    for (std::uint64_t round = 0; round < kRounds; ++round) {
      wrong += !worker.transport().post_receive(other, worker.slot(0, 8), 0);
      if (rank == 1) wrong += worker.events(1).size() != 1;
      if (rank == 1) wrong += std::memcmp(worker.slot(0).data(), &round, sizeof round) != 0;
      std::memcpy(worker.slot(1).data(), &round, sizeof round);
      wrong += !worker.transport().post_send(other, worker.slot(1, 8), 1);
      const std::size_t expected = rank == 1 ? 1 : 2;
      wrong += worker.events(expected).size() != expected;
      if (rank == 0) wrong += std::memcmp(worker.slot(0).data(), &round, sizeof round) != 0;
    }
    EXPECT_EQ(wrong, 0u) << "rank " << rank;
  };
  std::thread other([&play] { play(1); });
  play(0);
  other.join();
}

// Every worker is a thread, and sends to every other.
TYPED_TEST_P(TransportConformance, many_threads_exchange) {
  constexpr std::int32_t kPeers = 5;
  this->start(kPeers);
  std::vector<std::thread> threads;
  for (PeerRank rank = 0; rank < kPeers; ++rank) {
    threads.emplace_back([this, rank] { Exchange(this->worker(rank), 500).run(); });
  }
  for (std::thread& thread : threads) thread.join();
}

TYPED_TEST_P(TransportConformance, peer_leaves_in_the_middle) {
  for (int round = 0; round < 50; ++round) {
    auto network = std::make_unique<TypeParam>(2);
    TestWorker stays(network->endpoint(0));
    std::thread other([endpoint = network->endpoint(1), round]() mutable {
      TestWorker leaves(std::move(endpoint));
      const auto receives = static_cast<std::size_t>(round % 5);
      for (std::size_t i = 0; i < receives; ++i) EXPECT_TRUE(leaves.receive(0, i));
      leaves.events(receives / 2);
    });
    // Posts until the peer is gone; everything accepted ends exactly once, as sent or as gone.
    std::set<OperationId> open;
    OperationId next = 0;
    for (bool gone = false; !gone || !open.empty();) {
      const Status status = gone ? Status(ErrorCode::kUnavailable, "gone") : stays.send(1, next, "x");
      if (status) open.insert(next++);
      if (!status && status.error().code() == ErrorCode::kUnavailable) gone = true;
      const std::size_t least = !status && !open.empty() ? 1 : 0;  // no more can be posted: something has to end
      const std::vector<TransportEvent> events = stays.events(least);
      ASSERT_GE(events.size(), least) << "an operation never ended";
      for (const TransportEvent& event : events) {
        ASSERT_EQ(open.erase(event.operation), 1u) << event;
        gone = gone || event.kind == TransportEvent::Kind::kPeerGone;
      }
    }
    other.join();
  }
}

REGISTER_TYPED_TEST_SUITE_P(TransportConformance, endpoints_know_who_they_are, message_reaches_a_waiting_receive,
                            message_waits_for_a_receive, messages_stay_in_order, receive_is_for_one_sender,
                            long_message_is_truncated, message_may_be_empty, sends_in_flight_are_bounded,
                            impossible_posts_are_refused, events_come_one_at_a_time_if_asked,
                            gone_peer_ends_each_operation_once, posts_to_a_gone_peer_fail_at_once_or_end_as_gone,
                            poll_waits_no_longer_than_told, wake_ends_a_poll, threads_play_ping_pong,
                            many_threads_exchange, peer_leaves_in_the_middle);

}  // namespace tandem
