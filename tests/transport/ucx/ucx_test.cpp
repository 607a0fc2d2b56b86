// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "transport/ucx/ucx.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "tests/base/error_of.h"
#include "tests/transport/conformance.h"
#include "tests/transport/worker.h"

// The leak checker's, where there is one.
extern "C" {
[[gnu::weak]] void __lsan_disable();
[[gnu::weak]] void __lsan_enable();
}

namespace tandem {
namespace {

using testing::HasSubstr;

// UCX 1.13 loses some 100 bytes for each way that it cannot open.
class IgnoredLeaks {
 public:
  IgnoredLeaks() {
    if (__lsan_disable) __lsan_disable();
  }
  ~IgnoredLeaks() {
    if (__lsan_enable) __lsan_enable();
  }
};

// All endpoints of a network in one process, each with a context and a worker of its own, so that nothing but UCX joins
// them. They are connected to each other before one is handed out.
class UcxNetwork {
 public:
  UcxNetwork(std::int32_t peers, const UcxConfig& config) {
    for (PeerRank rank = 0; rank < peers; ++rank) endpoints_.push_back(UcxTransport::make(rank, peers, config));
    for (const auto& to : endpoints_)
      for (const auto& from : endpoints_)
        if (from != to) to->connect(from->hello_for(to->rank()));
    const RealClock clock;
    const Nanoseconds end = clock.now() + kTestWait;
    for (bool ready = false; !ready && clock.now() < end;) {
      ready = true;
      for (const auto& endpoint : endpoints_) ready = endpoint->ready() && ready;
    }
    for (const auto& endpoint : endpoints_) EXPECT_TRUE(endpoint->wait_until_ready(0));
  }

  std::unique_ptr<UcxTransport> endpoint(PeerRank rank) {
    return std::move(endpoints_[static_cast<std::size_t>(rank)]);
  }

 private:
  std::vector<std::unique_ptr<UcxTransport>> endpoints_;
};

// Few sends: a queue of shared memory has 64 places, and what does not find one waits until its sender polls.
class SharedMemory : public UcxNetwork {
 public:
  explicit SharedMemory(std::int32_t peers)
      : UcxNetwork(peers, {.sends_max = 8, .notice_dead_peers = false, .transports = "shm,self"}) {}
};

class Tcp : public UcxNetwork {
 public:
  explicit Tcp(std::int32_t peers) : UcxNetwork(peers, {.sends_max = 8, .transports = "tcp", .devices = "lo"}) {}
};

// Every message is fetched by its receiver.
class Rendezvous : public UcxNetwork {
 public:
  explicit Rendezvous(std::int32_t peers)
      : UcxNetwork(peers, {.sends_max = 8,
                           .spin = 0,
                           .notice_dead_peers = false,
                           .transports = "shm,self",
                           .rendezvous_threshold = "0"}) {}
};

using Networks = testing::Types<SharedMemory, Tcp, Rendezvous>;
INSTANTIATE_TYPED_TEST_SUITE_P(Ucx, TransportConformance, Networks);

TEST(Ucx, config_must_make_sense) {
  const auto message = [](PeerRank rank, std::int32_t peers, const UcxConfig& config) {
    return error_of([&] { UcxTransport::make(rank, peers, config); }).message();
  };
  EXPECT_EQ(message(0, 0, {}), "ucx transport: peers is 0, at least 1 is needed");
  EXPECT_EQ(message(2, 2, {}), "ucx transport: rank is 2, limit is 2 peers");
  EXPECT_EQ(message(0, 1, {.sends_max = 0}), "ucx transport: sends_max is 0, at least 1 is needed");
  EXPECT_EQ(message(0, 1, {.receives_max = -1}), "ucx transport: receives_max is -1, at least 1 is needed");
  EXPECT_THAT(message(0, 1, {.rendezvous_threshold = "many"}), HasSubstr("option UCX_RNDV_THRESH = 'many'"));
}

TEST(Ucx, missing_device_is_named) {
  const Error error = error_of([] { UcxTransport::make(0, 1, {.transports = "tcp", .devices = "nowhere0"}); });
  EXPECT_EQ(error.code(), ErrorCode::kUnavailable);
  EXPECT_THAT(error.message(), HasSubstr("no device for transports 'tcp' and devices 'nowhere0'"));
}

TEST(Ucx, missing_route_is_named) {
  const auto shared = UcxTransport::make(0, 2, {.notice_dead_peers = false, .transports = "shm,self"});
  const auto tcp = UcxTransport::make(1, 2, {.notice_dead_peers = false, .transports = "tcp", .devices = "lo"});
  const Error error = error_of([&] { shared->connect(tcp->hello_for(0)); });
  EXPECT_EQ(error.code(), ErrorCode::kUnavailable);
  EXPECT_THAT(error.message(), HasSubstr("no route from rank 0 to rank 1"));
}

// With shared memory an address names descriptors of its process, and the next endpoint must not have the same ones.
TEST(Ucx, address_of_an_endpoint_that_is_gone_does_not_reach_the_next) {
  const UcxConfig config{.notice_dead_peers = false, .transports = "posix,self"};
  const auto make = [&](PeerRank rank) { return UcxTransport::make(rank, 2, config); };
  std::vector<std::vector<std::byte>> gone;
  for (int i = 0; i < 3; ++i) gone.push_back(make(0)->hello_for(1));
  const auto now = make(0), peer = make(1);
  for (const std::vector<std::byte>& hello : gone) {
    const IgnoredLeaks ignored;
    EXPECT_THAT(error_of([&] { peer->connect(hello); }).message(), HasSubstr("no route from rank 1 to rank 0"));
  }
  peer->connect(now->hello_for(1));
}

TEST(Ucx, hello_must_be_meant_for_this_endpoint) {
  const UcxConfig config = {.transports = "tcp", .devices = "lo"};
  const auto one = UcxTransport::make(0, 2, config);
  const auto two = UcxTransport::make(1, 2, config);
  EXPECT_THAT(error_of([&] { one->connect(two->hello_for(1)); }).message(), HasSubstr("it is for rank 1 of 2"));
  UcxConfig few = config;
  few.sends_max = 3;
  const auto other = UcxTransport::make(1, 2, few);
  EXPECT_THAT(error_of([&] { one->connect(other->hello_for(0)); }).message(), HasSubstr("it sends 3 messages"));
  one->connect(two->hello_for(0));
  EXPECT_THAT(error_of([&] { one->connect(two->hello_for(0)); }).message(), HasSubstr("it is connected already"));
  EXPECT_EQ(one->wait_until_ready(0).error().message(), "ucx transport: rank 0 has not heard of rank 1 in 0 ms");
}

TEST(Ucx, posts_need_a_connection_and_a_region) {
  const auto alone = UcxTransport::make(0, 2, {.transports = "tcp", .devices = "lo"});
  std::vector<std::byte> strange(16), known(16);
  ASSERT_TRUE(alone->register_region(known));
  EXPECT_EQ(alone->post_send(1, strange, 0).error().message(),
            "message of 16 bytes for peer 1 is in none of 1 registered regions");
  EXPECT_EQ(alone->post_send(1, known, 0).error().message(), "peer 1 is not connected");
  EXPECT_EQ(alone->post_receive(1, known, 0).error().code(), ErrorCode::kUnavailable);
}

// Messages as long as a hand-over's, with every byte looked at, over whatever way UCX takes for that length.
void exchange_large(const UcxConfig& config) {
  UcxNetwork network(2, config);
  const auto from = network.endpoint(0), to = network.endpoint(1);
  std::vector<std::byte> source(2 << 20), target(2 << 20);
  for (std::size_t i = 0; i < source.size(); ++i) source[i] = static_cast<std::byte>(i * 131 >> 7);
  ASSERT_TRUE(from->register_region(source));
  ASSERT_TRUE(to->register_region(target));
  for (const std::size_t bytes : {8u << 10, 100'000u, 2u << 20}) {
    std::ranges::fill(target, std::byte{0});
    ASSERT_TRUE(to->post_receive(0, target, 1));
    ASSERT_TRUE(from->post_send(1, std::span(source).first(bytes), 2));
    TransportEvent arrived, left;
    const RealClock clock;
    const Nanoseconds end = clock.now() + kTestWait;
    for (std::size_t events = 0; events < 2 && clock.now() < end;)
      events += to->poll({&arrived, 1}, 0) + from->poll({&left, 1}, 0);
    EXPECT_EQ(arrived, received(0, 1, bytes));
    EXPECT_EQ(left, sent(1, 2));
    EXPECT_TRUE(std::equal(source.begin(), source.begin() + static_cast<std::ptrdiff_t>(bytes), target.begin()));
  }
}

TEST(Ucx, large_messages_over_shared_memory) {
  exchange_large({.notice_dead_peers = false, .transports = "shm,self"});
}
TEST(Ucx, large_messages_over_tcp) {
  exchange_large({.transports = "tcp", .devices = "lo"});
}

TEST(Ucx, given_up_peer_ends_what_is_posted) {
  UcxNetwork network(2, {.notice_dead_peers = false, .transports = "shm,self"});
  std::unique_ptr<UcxTransport> endpoint = network.endpoint(0);
  UcxTransport& stays = *endpoint;
  TestWorker worker(std::move(endpoint));
  ASSERT_TRUE(worker.receive(1, 4));
  ASSERT_TRUE(worker.send(1, 5, "never read"));
  stays.give_up(1);
  EXPECT_THAT(worker.events(2), UnorderedElementsAre(peer_gone(1, 4), peer_gone(1, 5)));
  EXPECT_EQ(worker.send(1, 6, "late").error().code(), ErrorCode::kUnavailable);
}

void end_before(const UcxConfig& config, std::size_t bytes) {
  UcxNetwork network(2, config);
  std::unique_ptr<UcxTransport> from = network.endpoint(0);
  const std::unique_ptr<UcxTransport> never_polls = network.endpoint(1);
  std::vector<std::byte> message(bytes);
  ASSERT_TRUE(from->register_region(message));
  for (std::int32_t i = 0; i < config.sends_max; ++i)
    ASSERT_TRUE(from->post_send(1, message, static_cast<OperationId>(i)));
  from.reset();
}

// More than the queue of shared memory holds, or than a receiver has asked for: what did not go is UCX's until it ends.
TEST(Ucx, endpoint_may_end_while_messages_wait_for_their_peer) {
  end_before({.sends_max = 256, .notice_dead_peers = false, .transports = "posix,self"}, 64);
  end_before({.sends_max = 2, .notice_dead_peers = false, .transports = "tcp", .devices = "lo"}, 1 << 20);
  end_before({.sends_max = 2, .transports = "tcp", .devices = "lo"}, 1 << 20);
}

}  // namespace
}  // namespace tandem
