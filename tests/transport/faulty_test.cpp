// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "transport/faulty/faulty.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "tests/base/error_of.h"
#include "tests/transport/conformance.h"
#include "tests/transport/worker.h"
#include "transport/inproc/inproc.h"

namespace tandem {
namespace {

using testing::HasSubstr;

// All endpoints faulty, with a policy that does nothing.
class HarmlessNetwork {
 public:
  explicit HarmlessNetwork(std::int32_t peers) : network_(peers) {}
  std::unique_ptr<Transport> endpoint(PeerRank rank) {
    return std::make_unique<FaultyTransport>(network_.endpoint(rank), FaultPolicy{}, 0, clock_);
  }

 private:
  InprocNetwork network_;
  inline static const RealClock clock_;  // outlives the endpoints
};

// Faults that can happen and never do: what is set aside for copies must not show.
class LuckyNetwork {
 public:
  explicit LuckyNetwork(std::int32_t peers) : network_(peers) {}
  std::unique_ptr<Transport> endpoint(PeerRank rank) {
    return std::make_unique<FaultyTransport>(network_.endpoint(rank),
                                             FaultPolicy{.duplicate = 1e-300, .copy_bytes_max = 64}, 0, clock_);
  }

 private:
  InprocNetwork network_;
  inline static const RealClock clock_;
};

using Networks = testing::Types<HarmlessNetwork, LuckyNetwork>;
INSTANTIATE_TYPED_TEST_SUITE_P(Faulty, TransportConformance, Networks);

// Worker 0 sends through faults to worker 1; the test moves the clock.
class Faults : public testing::Test {
 protected:
  void start(const FaultPolicy& policy, std::uint64_t seed = 1) {
    auto faulty = std::make_unique<FaultyTransport>(network_.endpoint(0), policy, seed, clock_);
    faulty_ = faulty.get();
    sender_ = std::make_unique<TestWorker>(std::move(faulty));
    receiver_ = std::make_unique<TestWorker>(network_.endpoint(1));
    for (std::size_t i = 0; i < 64; ++i) ASSERT_TRUE(receiver_->receive(0, i));
  }
  // Sends the texts, and returns what has arrived.
  std::vector<std::string> exchange(const std::vector<std::string>& texts) {
    for (std::size_t i = 0; i < texts.size(); ++i) {
      EXPECT_TRUE(sender_->send(1, i, texts[i]));
      EXPECT_THAT(sender_->events(1), ElementsAre(sent(1, i)));
    }
    return arrived();
  }
  std::vector<std::string> arrived() {
    std::vector<std::string> texts;
    for (const TransportEvent& event : receiver_->events(0))
      texts.push_back(receiver_->text(event.operation, event.bytes));
    return texts;
  }

  InprocNetwork network_{2};
  VirtualClock clock_;
  std::unique_ptr<TestWorker> sender_, receiver_;
  FaultyTransport* faulty_ = nullptr;
};

TEST_F(Faults, drop_reports_sent_and_delivers_nothing) {
  start({.drop = 1});
  EXPECT_THAT(exchange({"a", "b"}), IsEmpty());
  EXPECT_EQ(faulty_->counts().dropped, 2u);
  EXPECT_EQ(faulty_->counts().messages, 2u);
}

TEST_F(Faults, filter_hits_one_message) {
  start({.drop = 1, .applies = [](PeerRank to, std::span<const std::byte> message) {
           return to == 1 && message.size() == 2 && message[0] == std::byte{'b'};
         }});
  EXPECT_THAT(exchange({"b", "bb", "cc"}), ElementsAre("b", "cc"));
  EXPECT_EQ(faulty_->counts().messages, 1u);
}

TEST_F(Faults, delayed_message_is_overtaken) {
  start({.delay = 1, .delay_by = 100, .applies = [](PeerRank, std::span<const std::byte> message) {
           return message[0] == std::byte{'l'};
         }});
  EXPECT_THAT(exchange({"late", "early"}), ElementsAre("early"));
  clock_.advance_to(99);
  EXPECT_THAT(sender_->events(0), IsEmpty());
  EXPECT_THAT(arrived(), IsEmpty());
  clock_.advance_to(100);
  EXPECT_THAT(sender_->events(0), IsEmpty()) << "the copy's own event is nobody's business";
  EXPECT_THAT(arrived(), ElementsAre("late"));
  EXPECT_EQ(faulty_->counts().delayed, 1u);
}

TEST_F(Faults, a_post_releases_what_is_due_in_order) {
  start({.delay = 1, .delay_by = 100});
  EXPECT_THAT(exchange({"a", "b", "c"}), IsEmpty());
  clock_.advance_to(100);
  ASSERT_TRUE(sender_->receive(1, 9));
  EXPECT_THAT(arrived(), ElementsAre("a", "b", "c"));
}

TEST_F(Faults, buffer_of_a_delayed_message_is_free_at_once) {
  start({.delay = 1, .delay_by = 100});
  EXPECT_THAT(exchange({"before"}), IsEmpty());
  std::memcpy(sender_->slot(0).data(), "xxxxxx", 6);
  clock_.advance_to(100);
  EXPECT_THAT(sender_->events(0), IsEmpty());
  EXPECT_THAT(arrived(), ElementsAre("before"));
}

TEST_F(Faults, duplicate_comes_twice) {
  start({.duplicate = 1});
  EXPECT_THAT(exchange({"a", "b"}), ElementsAre("a", "a", "b", "b"));
  EXPECT_EQ(faulty_->counts().duplicated, 2u);
}

TEST_F(Faults, corruption_flips_one_bit) {
  start({.corrupt = 1});
  const std::string text(100, 'a');
  for (int round = 0; round < 20; ++round) {
    const std::vector<std::string> texts = exchange({text});
    ASSERT_EQ(texts.size(), 1u);
    ASSERT_EQ(texts[0].size(), text.size());
    int flipped = 0;
    for (std::size_t i = 0; i < text.size(); ++i)
      flipped += std::popcount(static_cast<unsigned char>(text[i] ^ texts[0][i]));
    EXPECT_EQ(flipped, 1);
    EXPECT_EQ(sender_->text(0, text.size()), text) << "the sender's own buffer is not touched";
  }
  EXPECT_EQ(faulty_->counts().corrupted, 20u);
  EXPECT_THAT(exchange({""}), ElementsAre("")) << "nothing to damage";
  EXPECT_EQ(faulty_->counts().corrupted, 20u);
}

TEST_F(Faults, room_for_copies_is_bounded) {
  start({.delay = 1, .delay_by = 100, .copies_max = 2, .copy_bytes_max = 4});
  EXPECT_EQ(faulty_->capabilities().sends_max, InprocConfig{}.sends_max - 2);
  EXPECT_THAT(exchange({"large", "a", "b", "c"}), ElementsAre("large", "c")) << "what finds no room goes unharmed";
  EXPECT_EQ(faulty_->counts().uncopied, 2u);
  EXPECT_EQ(faulty_->counts().delayed, 2u);
  clock_.advance_to(100);
  EXPECT_THAT(sender_->events(0), IsEmpty());
  EXPECT_THAT(arrived(), ElementsAre("a", "b"));
  EXPECT_THAT(exchange({"d"}), IsEmpty()) << "room is used again";
  EXPECT_FALSE(faulty_->post_send(1, {}, ~OperationId{1})) << "an id of the copies";
}

TEST(Faulty, seed_decides) {
  const auto run = [](std::uint64_t seed) {
    InprocNetwork network(2, {.receives_max = TestWorker::kSlots});
    const VirtualClock clock;
    auto faulty = std::make_unique<FaultyTransport>(
        network.endpoint(0), FaultPolicy{.drop = 0.2, .delay = 0.2, .duplicate = 0.2, .corrupt = 0.2}, seed, clock);
    const FaultyTransport& counting = *faulty;
    TestWorker sender(std::move(faulty)), receiver(network.endpoint(1));
    for (std::size_t i = 0; i < TestWorker::kSlots; ++i) EXPECT_TRUE(receiver.receive(0, i));
    for (std::size_t i = 0; i < 200; ++i) {
      EXPECT_TRUE(sender.send(1, i, std::to_string(i)));
      EXPECT_THAT(sender.events(1), ElementsAre(sent(1, i)));
    }
    std::vector<std::string> texts;
    for (const TransportEvent& event : receiver.events(0)) texts.push_back(receiver.text(event.operation, event.bytes));
    return std::pair(texts, counting.counts());
  };
  const auto [texts, counts] = run(1);
  EXPECT_EQ(run(1).first, texts);
  EXPECT_NE(run(2).first, texts);
  EXPECT_EQ(texts.size(), 200 - counts.dropped + counts.duplicated);
  EXPECT_NEAR(static_cast<double>(counts.dropped), 40, 20);
  for (const std::uint64_t count : {counts.delayed, counts.duplicated, counts.corrupted}) {
    EXPECT_NEAR(static_cast<double>(count), 32, 18) << "of the 160 not dropped";
  }
}

TEST_F(Faults, endpoint_dies_after_so_many_messages) {
  start({.fail_after = 2});
  ASSERT_TRUE(receiver_->send(0, 100, "never read"));
  ASSERT_TRUE(sender_->send(1, 0, "a"));
  ASSERT_TRUE(sender_->send(1, 1, "b"));
  EXPECT_FALSE(faulty_->failed());
  ASSERT_TRUE(sender_->receive(0, 20)) << "from itself, still open when it dies";
  ASSERT_TRUE(sender_->send(1, 2, "one too many"));
  EXPECT_TRUE(faulty_->failed());
  EXPECT_THAT(sender_->events(4), UnorderedElementsAre(sent(1, 0), sent(1, 1), peer_gone(0, 20), peer_gone(1, 2)));
  for (const PeerRank peer : {0, 1}) {
    EXPECT_EQ(sender_->send(peer, 3, "x").error().code(), ErrorCode::kUnavailable);
    EXPECT_EQ(sender_->receive(peer, 4).error().code(), ErrorCode::kUnavailable);
  }

  const std::vector<TransportEvent> events = receiver_->events(65);
  ASSERT_EQ(events.size(), 65u) << "64 receives and a send";
  EXPECT_EQ(events[0], received(0, 0, 1));
  EXPECT_EQ(events[1], received(0, 1, 1));
  for (std::size_t i = 2; i < events.size(); ++i) EXPECT_EQ(events[i].kind, TransportEvent::Kind::kPeerGone) << i;
  EXPECT_FALSE(receiver_->send(0, 0, "x"));
}

TEST_F(Faults, dead_endpoint_still_waits_and_wakes) {
  start({.fail_after = 0});
  ASSERT_TRUE(sender_->send(1, 0, "a"));
  EXPECT_THAT(sender_->events(1), ElementsAre(peer_gone(1, 0)));
  TransportEvent event;
  const RealClock clock;
  const Nanoseconds start = clock.now();
  EXPECT_EQ(faulty_->poll({&event, 1}, 2'000'000), 0u);
  EXPECT_GE(clock.now() - start, 2'000'000);
  std::thread other([this] { faulty_->wake(); });
  EXPECT_EQ(faulty_->poll({&event, 1}, kTestWait), 0u);
  other.join();
  EXPECT_LT(clock.now() - start, kTestWait);
}

TEST_F(Faults, wake_may_meet_the_failure) {
  start({.fail_after = 50});
  std::thread other([this] {
    for (int i = 0; i < 2000; ++i) faulty_->wake();
  });
  for (std::size_t i = 0; i < 51; ++i) {
    ASSERT_TRUE(sender_->send(1, i, "x"));
    EXPECT_EQ(sender_->events(1).size(), 1u);
  }
  other.join();
  EXPECT_TRUE(faulty_->failed());
}

TEST(Faulty, waiting_poll_sends_the_delayed_message_when_due) {
  InprocNetwork network(2);
  const RealClock clock;
  TestWorker sender(
      std::make_unique<FaultyTransport>(network.endpoint(0), FaultPolicy{.delay = 1, .delay_by = 3'000'000}, 1, clock));
  TestWorker receiver(network.endpoint(1));
  ASSERT_TRUE(receiver.receive(0, 0));
  ASSERT_TRUE(sender.send(1, 0, "late"));
  ASSERT_THAT(sender.events(1), ElementsAre(sent(1, 0)));
  ASSERT_THAT(receiver.events(0), IsEmpty());
  TransportEvent event;
  EXPECT_EQ(sender.transport().poll({&event, 1}, 30'000'000), 0u);
  EXPECT_THAT(receiver.events(0), ElementsAre(received(0, 0, 4)));
}

TEST(Faulty, policy_must_make_sense) {
  const auto refusal = [](const FaultPolicy& policy) {
    return error_of([&] {
             InprocNetwork network(2, {.sends_max = 4});
             const VirtualClock clock;
             FaultyTransport faulty(network.endpoint(0), policy, 0, clock);
           })
        .message();
  };
  EXPECT_EQ(refusal({.drop = 1.5}), "fault policy: drop is 1.5, a probability is 0 to 1");
  EXPECT_THAT(refusal({.delay = -1}), HasSubstr("delay is -1"));
  EXPECT_THAT(refusal({.duplicate = std::numeric_limits<double>::quiet_NaN()}), HasSubstr("duplicate is nan"));
  EXPECT_THAT(refusal({.corrupt = 2}), HasSubstr("corrupt is 2"));
  EXPECT_THAT(refusal({.delay_by = -5}), HasSubstr("delay_by is -5 ns"));
  EXPECT_THAT(refusal({.delay = 1, .copies_max = 4}), HasSubstr("copies_max is 4, it must be"));
  EXPECT_THAT(refusal({.delay = 1, .copies_max = 0}), HasSubstr("copies_max is 0, it must be"));
}

}  // namespace
}  // namespace tandem
