// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "sim/fleet/fleet_network.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "transport/frame.h"

namespace tandem {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr FleetNetwork::Process kWorker = 0, kOther = 1, kFront = 2;

class FleetNetworkTest : public testing::Test {
 protected:
  FleetNetworkTest() {
    for (const FleetNetwork::Process process : {kWorker, kOther, kFront}) appear(process);
  }
  void appear(FleetNetwork::Process process) {
    network.appear(
        process, held, [this](std::unique_ptr<ControlChannel> channel) { accepted = std::move(channel); }, [] {});
  }
  void run() {
    while (stage.step()) continue;
  }
  static std::vector<std::uint32_t> epochs(ControlChannel& channel) {
    std::vector<ControlMessage> came;
    EXPECT_TRUE(channel.move(came));
    std::vector<std::uint32_t> epochs;
    for (const ControlMessage& message : came) epochs.push_back(std::get<Ready>(message).epoch);
    return epochs;
  }
  static std::string end_of(ControlChannel& channel) {
    std::vector<ControlMessage> came;
    const Status status = channel.move(came);
    return status ? "" : status.error().message();
  }
  // Two endpoints that have met.
  void meet() {
    a = network.make_endpoint(kWorker, kWorker, 2, 4096);
    b = network.make_endpoint(kOther, kOther, 2, 4096);
    a->connect(b->hello_for(kWorker));
    b->connect(a->hello_for(kOther));
    EXPECT_FALSE(a->ready());
    EXPECT_FALSE(b->ready());
    run();
    EXPECT_TRUE(a->ready());
    EXPECT_TRUE(b->ready());
  }
  static std::vector<std::byte> frame(std::uint32_t epoch) {
    std::vector<std::byte> message(sizeof(FrameHeader) + 8);
    FrameHeader header;
    header.epoch = epoch;
    header.step = 7;
    seal_frame(header, message);
    return message;
  }
  static std::vector<TransportEvent> events(MeetingTransport& endpoint) {
    std::vector<TransportEvent> events(16);
    events.resize(endpoint.poll(events, 0));
    return events;
  }

  Stage stage;
  Rng rng{1};
  FleetNetwork network{stage, 3, rng};
  StageProcess held{stage};
  std::unique_ptr<ControlChannel> accepted;
  std::unique_ptr<MeetingTransport> a, b;
};

// A replica is cut off by where it runs, not by the seat that it has.
TEST_F(FleetNetworkTest, AnEndpointIsWhereItsProcessIs) {
  constexpr PeerRank kSeat = 0, kOtherSeat = 1;
  a = network.make_endpoint(kWorker, kOtherSeat, 2, 4096);
  b = network.make_endpoint(kOther, kSeat, 2, 4096);
  EXPECT_EQ(a->rank(), kOtherSeat);
  a->connect(b->hello_for(kOtherSeat));
  b->connect(a->hello_for(kSeat));
  a->ready();
  b->ready();
  run();
  ASSERT_TRUE(a->ready() && b->ready());
  std::vector<std::byte> message = frame(1), buffer(message.size());
  ASSERT_TRUE(b->post_receive(kOtherSeat, buffer, 1));
  network.cut(kWorker, kFront);
  ASSERT_TRUE(a->post_send(kSeat, message, 2));
  run();
  std::vector<TransportEvent> came = events(*b);
  ASSERT_EQ(came.size(), 1u);
  EXPECT_EQ(came[0].peer, kOtherSeat);
  ASSERT_TRUE(b->post_receive(kOtherSeat, buffer, 3));
  network.cut(kWorker, kOther);
  ASSERT_TRUE(a->post_send(kSeat, message, 4));
  run();
  EXPECT_TRUE(events(*b).empty());
  network.vanish(kWorker, false);
  network.heal_all();
  a.reset();
  run();
  came = events(*b);
  ASSERT_EQ(came.size(), 1u);
  EXPECT_EQ(came[0].kind, TransportEvent::Kind::kPeerGone);
}

TEST_F(FleetNetworkTest, ControlMessagesComeInOrderAndTheEndLast) {
  std::unique_ptr<ControlChannel> dialled = network.dial(kFront, kWorker);
  for (std::uint32_t epoch = 1; epoch <= 5; ++epoch) dialled->post(Ready{epoch});
  EXPECT_GT(dialled->unsent(), 0u);
  run();
  ASSERT_TRUE(accepted);
  dialled.reset();
  EXPECT_THAT(epochs(*accepted), ElementsAre(1, 2, 3, 4, 5));
  run();
  EXPECT_EQ(end_of(*accepted), "it has closed the connection");
}

TEST_F(FleetNetworkTest, NobodyAnswersForAProcessThatIsNotThere) {
  network.vanish(kWorker, false);
  const std::unique_ptr<ControlChannel> refused = network.dial(kFront, kWorker);
  run();
  EXPECT_EQ(end_of(*refused), "Connection refused");
  network.vanish(kOther, true);  // its machine is gone as well
  const std::unique_ptr<ControlChannel> silent = network.dial(kFront, kOther);
  run();
  EXPECT_EQ(end_of(*silent), "");
}

TEST_F(FleetNetworkTest, WhoIsCutOffHearsLater) {
  const std::unique_ptr<ControlChannel> dialled = network.dial(kFront, kWorker);
  run();
  network.cut(kWorker, kFront);
  dialled->post(Ready{1});
  const std::unique_ptr<ControlChannel> second = network.dial(kFront, kWorker);
  const std::unique_ptr<ControlChannel> first = std::move(accepted);
  run();
  EXPECT_TRUE(epochs(*first).empty());
  EXPECT_FALSE(accepted);
  network.heal(kFront, kWorker);
  run();
  EXPECT_THAT(epochs(*first), ElementsAre(1));
  EXPECT_TRUE(accepted);
}

TEST_F(FleetNetworkTest, AProcessThatVanishedSaysNothingMore) {
  const std::unique_ptr<ControlChannel> dialled = network.dial(kFront, kWorker);
  run();
  network.vanish(kWorker, true);
  accepted->post(Ready{1});
  accepted.reset();
  run();
  std::vector<ControlMessage> came;
  EXPECT_TRUE(dialled->move(came));
  EXPECT_TRUE(came.empty());
}

TEST_F(FleetNetworkTest, HandOversArriveInPostedBuffersInOrder) {
  meet();
  std::array<std::array<std::byte, 128>, 2> buffers{};
  for (std::size_t i = 0; i < 2; ++i) ASSERT_TRUE(b->post_receive(kWorker, buffers[i], i));
  for (const std::uint32_t epoch : {1u, 2u}) ASSERT_TRUE(a->post_send(kOther, frame(epoch), epoch));
  EXPECT_EQ(events(*a).size(), 2u);
  run();
  const std::vector<TransportEvent> came = events(*b);
  ASSERT_EQ(came.size(), 2u);
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(came[i].operation, i);
    const std::vector<std::byte> sent = frame(static_cast<std::uint32_t>(i + 1));
    EXPECT_EQ(came[i].bytes, sent.size());
    EXPECT_EQ(std::memcmp(buffers[i].data(), sent.data(), sent.size()), 0);
  }
}

TEST_F(FleetNetworkTest, FaultsAreDoneAndCounted) {
  meet();
  std::array<std::array<std::byte, 128>, 4> buffers{};
  for (std::size_t i = 0; i < 4; ++i) ASSERT_TRUE(b->post_receive(kWorker, buffers[i], i));
  network.faults.lose = 1;
  ASSERT_TRUE(a->post_send(kOther, frame(1), 0));
  run();
  EXPECT_TRUE(events(*b).empty());
  network.faults = {.repeat = 1, .damage = 1};
  ASSERT_TRUE(a->post_send(kOther, frame(1), 0));
  run();
  EXPECT_EQ(events(*b).size(), 2u);
  const std::vector<std::byte> sent = frame(1);
  EXPECT_NE(std::memcmp(buffers[0].data(), sent.data(), sent.size()), 0);  // the message is damaged, its copy is not
  EXPECT_EQ(std::memcmp(buffers[1].data(), sent.data(), sent.size()), 0);
  EXPECT_EQ(network.counts.messages, 2);
  EXPECT_EQ(network.counts.lost, 1);
  EXPECT_EQ(network.counts.repeated, 1);
  EXPECT_EQ(network.counts.damaged, 1);
}

TEST_F(FleetNetworkTest, AStaleMessageComesBeforeTheSameOfALaterEpoch) {
  meet();
  network.faults.stale = 1;
  ASSERT_TRUE(a->post_send(kOther, frame(1), 0));
  run();
  a.reset();
  b.reset();
  run();
  meet();
  std::array<std::array<std::byte, 128>, 2> buffers{};
  for (std::size_t i = 0; i < 2; ++i) ASSERT_TRUE(b->post_receive(kWorker, buffers[i], i));
  ASSERT_TRUE(a->post_send(kOther, frame(2), 0));
  run();
  ASSERT_EQ(events(*b).size(), 2u);
  EXPECT_EQ(std::memcmp(buffers[0].data(), frame(1).data(), frame(1).size()), 0);
  EXPECT_EQ(std::memcmp(buffers[1].data(), frame(2).data(), frame(2).size()), 0);
  EXPECT_EQ(network.counts.stale, 1);
}

TEST_F(FleetNetworkTest, AnEndpointThatEndsIsGoneForItsPeers) {
  meet();
  std::array<std::byte, 128> buffer{};
  ASSERT_TRUE(b->post_receive(kWorker, buffer, 9));
  a.reset();
  run();
  const std::vector<TransportEvent> came = events(*b);
  ASSERT_EQ(came.size(), 1u);
  EXPECT_EQ(came[0].kind, TransportEvent::Kind::kPeerGone);
  EXPECT_EQ(came[0].operation, 9u);
  EXPECT_THAT(b->post_send(kWorker, frame(1), 1).error().message(), HasSubstr("rank 0 is gone"));
}

TEST_F(FleetNetworkTest, AHelloIsForWhomItNames) {
  a = network.make_endpoint(kWorker, kWorker, 2, 4096);
  EXPECT_THROW(a->connect(a->hello_for(kOther)), Error);
  EXPECT_THROW(a->connect(std::vector<std::byte>(3)), Error);
}

}  // namespace
}  // namespace tandem
