// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "transport/inproc/inproc.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <thread>
#include <vector>

#include "tests/base/error_of.h"
#include "tests/transport/conformance.h"
#include "tests/transport/worker.h"

namespace tandem {
namespace {

using testing::HasSubstr;

class SleepingNetwork : public InprocNetwork {
 public:
  explicit SleepingNetwork(std::int32_t peers) : InprocNetwork(peers, {.sends_max = 8, .receives_max = 8, .spin = 0}) {}
};

class SpinningNetwork : public InprocNetwork {
 public:
  explicit SpinningNetwork(std::int32_t peers) : InprocNetwork(peers, {.spin = 20'000}) {}
};

using Networks = testing::Types<SleepingNetwork, SpinningNetwork>;
INSTANTIATE_TYPED_TEST_SUITE_P(Inproc, TransportConformance, Networks);

TEST(Inproc, config_must_make_sense) {
  EXPECT_EQ(error_of([] { InprocNetwork network(0); }).message(), "inproc transport: peers is 0, at least 1 is needed");
  EXPECT_THAT(error_of([] { InprocNetwork network(2, {.sends_max = 0}); }).message(), HasSubstr("sends_max is 0"));
  EXPECT_THAT(error_of([] { InprocNetwork network(2, {.receives_max = -1}); }).message(),
              HasSubstr("receives_max is -1"));
}

TEST(Inproc, buffer_must_be_registered) {
  InprocNetwork network(1);
  TestWorker worker(network.endpoint(0));
  std::vector<std::byte> strange(16);
  const Status send = worker.transport().post_send(0, strange, 0);
  EXPECT_EQ(send.error().code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(send.error().message(), "message of 16 bytes for peer 0 is in none of 1 registered regions");
  EXPECT_FALSE(worker.transport().post_receive(0, strange, 0));
  const std::span<std::byte> last = worker.slot(TestWorker::kSlots - 1);
  EXPECT_TRUE(worker.transport().post_send(0, last, 0)) << "up to the last byte";
  EXPECT_FALSE(worker.transport().post_send(0, {last.data(), last.size() + 1}, 1));
}

TEST(Inproc, message_has_a_limit) {
  InprocNetwork network(2, {.message_bytes_max = 4});
  TestWorker worker(network.endpoint(0));
  EXPECT_EQ(worker.send(1, 0, "12345").error().message(),
            "message to peer 1 has 5 bytes, limit is 4 (message_bytes_max)");
  EXPECT_TRUE(worker.send(1, 0, "1234"));
}

TEST(Inproc, receives_in_flight_are_bounded) {
  InprocNetwork network(2, {.receives_max = 2});
  TestWorker worker(network.endpoint(0)), other(network.endpoint(1));
  ASSERT_TRUE(worker.receive(1, 0));
  ASSERT_TRUE(worker.receive(1, 1));
  const Status refused = worker.receive(1, 2);
  EXPECT_EQ(refused.error().code(), ErrorCode::kOutOfResources);
  EXPECT_EQ(refused.error().message(), "peer 1 has 2 receives in flight, limit is 2 (receives_max)");
  ASSERT_TRUE(other.send(0, 0, "x"));
  EXPECT_FALSE(worker.receive(1, 2)) << "in flight until poll has told";
  ASSERT_THAT(worker.events(1), ElementsAre(received(1, 0, 1)));
  EXPECT_TRUE(worker.receive(1, 2));
}

TEST(Inproc, worker_may_send_to_itself) {
  InprocNetwork network(1);
  TestWorker worker(network.endpoint(0));
  ASSERT_TRUE(worker.receive(0, 1));
  ASSERT_TRUE(worker.send(0, 2, "me"));
  EXPECT_THAT(worker.events(2), UnorderedElementsAre(received(0, 1, 2), sent(0, 2)));
  EXPECT_EQ(worker.text(1, 2), "me");
}

TEST(Inproc, endpoints_outlive_the_network) {
  auto network = std::make_unique<InprocNetwork>(3);
  TestWorker zero(network->endpoint(0)), one(network->endpoint(1));
  ASSERT_TRUE(zero.receive(2, 0));
  network.reset();
  EXPECT_THAT(zero.events(1), ElementsAre(peer_gone(2, 0))) << "nobody can take that endpoint any more";
  EXPECT_EQ(zero.send(2, 1, "x").error().message(), "peer 2 of 3 is gone");
  ASSERT_TRUE(zero.receive(1, 2));
  ASSERT_TRUE(one.send(0, 3, "still here"));
  EXPECT_THAT(zero.events(1), ElementsAre(received(1, 2, 10)));
}

TEST(Inproc, endpoint_goes_while_a_message_is_copied_into_it) {
  // The sender's copy and the receiver's freeing of the buffer must not meet; the sanitizers would see it.
  for (int round = 0; round < 100; ++round) {
    InprocNetwork network(2, {.spin = 0});
    TestWorker sender(network.endpoint(0));
    auto receiver = std::make_unique<TestWorker>(network.endpoint(1));
    for (std::size_t i = 0; i < 8; ++i) ASSERT_TRUE(receiver->receive(0, i));
    std::thread other([&receiver] { receiver.reset(); });
    for (std::size_t i = 0; i < 8; ++i) {
      const Status status = sender.send(1, i, std::string(TestWorker::kSlotBytes, 'x'));
      EXPECT_TRUE(status || status.error().code() == ErrorCode::kUnavailable);
    }
    other.join();
  }
}

TEST(InprocDeathTest, endpoint_is_taken_once) {
  InprocNetwork network(2);
  const std::unique_ptr<Transport> endpoint = network.endpoint(1);
  EXPECT_DEATH(network.endpoint(1), "endpoint 1 is taken twice");
  EXPECT_DEATH(network.endpoint(2), "endpoint 2 of 2 peers");
}

}  // namespace
}  // namespace tandem
