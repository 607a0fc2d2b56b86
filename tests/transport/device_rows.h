// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What every transport that carries rows from device to device must do (the rules of transport/transport.h), beside
// what every transport must (conformance.h).
//
// A transport takes part with a class as for conformance.h that has device(rank) as well: the RowDevice of the worker.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/transport/conformance.h"

namespace tandem {

// The memory of a worker's device, and work on it, which is done in the order it is given and may be done late.
class RowDevice {
 public:
  static constexpr std::size_t kBytes = std::size_t{1} << 20;

  virtual ~RowDevice() = default;
  virtual std::span<std::byte> memory() = 0;  // kBytes, zeroed
  // Work: takes a while, then sets bytes.
  virtual void fill(std::span<std::byte> bytes, std::uint8_t value) = 0;
  // Work: copies bytes for take().
  virtual void read(std::span<const std::byte> bytes) = 0;
  // What was read, in order, once all work is done.
  virtual std::vector<std::vector<std::uint8_t>> take() = 0;
  // When the device's own work is done.
  virtual void free_memory() = 0;
  virtual bool untouched_since_freed() const { return true; }  // as far as can be told
};

template <class Network>
class DeviceRows : public testing::Test {
 protected:
  static constexpr std::size_t kRow = 4096;

  void SetUp() override {
    if (const std::string reason = Network::why_not(); !reason.empty()) GTEST_SKIP() << reason;
    network_ = std::make_unique<Network>(2);
    for (PeerRank rank = 0; rank < 2; ++rank)
      workers_.push_back(std::make_unique<TestWorker>(network_->endpoint(rank)));
  }
  TestWorker& worker(PeerRank rank) { return *workers_[static_cast<std::size_t>(rank)]; }
  RowDevice& device(PeerRank rank) { return network_->device(rank); }
  std::span<std::byte> row(PeerRank rank, std::size_t i, std::size_t bytes = kRow) {
    return device(rank).memory().subspan(i * kRow, bytes);
  }
  Status send(std::size_t i, std::size_t bytes = kRow) {
    return worker(0).transport().post_send_rows(1, worker(0).slot(i, 4), row(0, i, bytes), i);
  }
  Status receive(std::size_t i, std::size_t bytes = kRow) {
    return worker(1).transport().post_receive_rows(0, worker(1).slot(i, 4), row(1, i, bytes), i);
  }
  static TransportEvent received_rows(OperationId operation, std::size_t bytes) {
    return {TransportEvent::Kind::kReceived, 0, operation, 4, bytes};
  }
  static std::vector<std::uint8_t> all(std::uint8_t value, std::size_t bytes = kRow) {
    return std::vector<std::uint8_t>(bytes, value);
  }

  std::unique_ptr<Network> network_;
  std::vector<std::unique_ptr<TestWorker>> workers_;
};

TYPED_TEST_SUITE_P(DeviceRows);

TYPED_TEST_P(DeviceRows, come_with_their_message_whoever_is_first) {
  EXPECT_TRUE(this->worker(0).transport().capabilities().device_rows);
  for (const bool receive_first : {true, false}) {
    const std::size_t i = receive_first ? 1 : 2;
    const auto value = static_cast<std::uint8_t>(100 + i);
    if (receive_first) {
      ASSERT_TRUE(this->receive(i));
    }
    this->device(0).fill(this->row(0, i), value);  // still under way when it is sent
    ASSERT_TRUE(this->send(i));
    if (!receive_first) {
      ASSERT_TRUE(this->receive(i));
    }
    EXPECT_THAT(this->worker(1).events(1), ElementsAre(this->received_rows(i, this->kRow)));
    EXPECT_THAT(this->worker(0).events(1), ElementsAre(sent(1, i)));
    this->device(1).read(this->row(1, i));
    EXPECT_THAT(this->device(1).take(), ElementsAre(this->all(value)));
  }
}

TYPED_TEST_P(DeviceRows, may_be_overwritten_after_the_event) {
  ASSERT_TRUE(this->receive(0));
  this->device(0).fill(this->row(0, 0), 1);
  ASSERT_TRUE(this->send(0));
  ASSERT_THAT(this->worker(0).events(1), ElementsAre(sent(1, 0)));
  this->device(0).fill(this->row(0, 0), 2);
  this->device(0).take();
  ASSERT_EQ(this->worker(1).events(1).size(), 1u);
  this->device(1).read(this->row(1, 0));
  EXPECT_THAT(this->device(1).take(), ElementsAre(this->all(1)));
}

TYPED_TEST_P(DeviceRows, leave_their_place_alone_while_work_uses_it) {
  for (std::uint8_t value = 1; value <= 20; ++value) {
    this->device(0).fill(this->row(0, 0), value);
    ASSERT_TRUE(this->send(0));
    ASSERT_TRUE(this->receive(0));
    ASSERT_EQ(this->worker(1).events(1).size(), 1u);
    ASSERT_EQ(this->worker(0).events(1).size(), 1u);
    this->device(1).fill(this->row(1, 5), value);  // takes a while
    this->device(1).read(this->row(1, 0));         // and is not over when the next rows come
  }
  const std::vector<std::vector<std::uint8_t>> read = this->device(1).take();
  ASSERT_EQ(read.size(), 20u);
  for (std::size_t i = 0; i < read.size(); ++i)
    EXPECT_EQ(read[i], this->all(static_cast<std::uint8_t>(i + 1))) << "round " << i;
}

TYPED_TEST_P(DeviceRows, are_cut_off_at_their_place) {
  this->device(0).fill(this->row(0, 0), 7);
  ASSERT_TRUE(this->receive(0, 100));
  ASSERT_TRUE(this->send(0));
  EXPECT_THAT(this->worker(1).events(1), ElementsAre(TransportEvent{TransportEvent::Kind::kTruncated, 0, 0, 4, 100}));
  this->device(1).read(this->row(1, 0));
  std::vector<std::uint8_t> expected = this->all(0);
  std::fill_n(expected.begin(), 100, std::uint8_t{7});
  EXPECT_THAT(this->device(1).take(), ElementsAre(expected));
}

TYPED_TEST_P(DeviceRows, are_with_some_messages_only) {
  ASSERT_TRUE(this->receive(0));
  ASSERT_TRUE(this->worker(0).transport().post_send(1, this->worker(0).slot(0, 4), 0));
  EXPECT_THAT(this->worker(1).events(1), ElementsAre(received(0, 0, 4)));
  ASSERT_TRUE(this->worker(1).transport().post_receive(0, this->worker(1).slot(1, 4), 1));
  ASSERT_TRUE(this->send(1));
  EXPECT_THAT(this->worker(1).events(1), ElementsAre(truncated(0, 1, 4))) << "rows without a place";
  ASSERT_TRUE(this->receive(2, 0));
  ASSERT_TRUE(this->send(2, 0));
  EXPECT_THAT(this->worker(1).events(1), ElementsAre(received(0, 2, 4)));
  EXPECT_EQ(this->worker(0).events(3).size(), 3u);
}

// The memory goes as soon as the endpoint has gone, with a copy under way and others that nobody took.
TYPED_TEST_P(DeviceRows, of_a_peer_that_goes_hold_up_nobody) {
  for (const PeerRank goes : {0, 1}) {
    if (goes == 1) {
      this->workers_.clear();
      this->SetUp();
    }
    this->device(0).fill(this->row(0, 0), 9);
    this->device(1).fill(this->row(1, 0), 3);
    ASSERT_TRUE(this->send(0));
    ASSERT_TRUE(this->receive(0));
    const Status unmatched = goes == 1 ? this->send(1) : this->receive(1);
    ASSERT_TRUE(unmatched);
    this->worker(goes).leave();
    this->device(goes).free_memory();
    TestWorker& stays = this->worker(1 - goes);
    EXPECT_EQ(stays.events(2).size(), 2u);
    EXPECT_FALSE(goes == 1 ? this->send(2) : this->receive(2));
    this->device(1 - goes).fill(this->row(1 - goes, 3), 4);
    this->device(1 - goes).read(this->row(1 - goes, goes == 0 ? 0 : 3));
    EXPECT_THAT(this->device(1 - goes).take(), ElementsAre(this->all(goes == 0 ? 9 : 4)));
    EXPECT_TRUE(this->device(goes).untouched_since_freed());
  }
}

// Each adds one to what it is sent and sends it back, without waiting for its device.
TYPED_TEST_P(DeviceRows, follow_each_other_through_threads) {
  constexpr std::size_t kRounds = 500;
  const auto play = [this](PeerRank rank) {
    TestWorker& worker = this->worker(rank);
    const PeerRank other = 1 - rank;
    std::size_t wrong = 0;
    for (std::size_t round = 0; round < kRounds; ++round) {
      const auto value = static_cast<std::uint8_t>(2 * round + static_cast<std::size_t>(rank));
      wrong += !worker.transport().post_receive_rows(other, worker.slot(0, 8), this->row(rank, 0), 0);
      if (rank == 1) wrong += worker.events(1).size() != 1;
      if (rank == 1) this->device(rank).read(this->row(rank, 0, 8));
      this->device(rank).fill(this->row(rank, 1), value);
      wrong += !worker.transport().post_send_rows(other, worker.slot(1, 8), this->row(rank, 1), 1);
      const std::size_t expected = rank == 1 ? 1 : 2;
      wrong += worker.events(expected).size() != expected;
      if (rank == 0) this->device(rank).read(this->row(rank, 0, 8));
    }
    const std::vector<std::vector<std::uint8_t>> read = this->device(rank).take();
    wrong += read.size() != kRounds;
    for (std::size_t round = 0; round < read.size(); ++round)
      wrong += read[round] !=
               std::vector<std::uint8_t>(8, static_cast<std::uint8_t>(2 * round + static_cast<std::size_t>(other)));
    EXPECT_EQ(wrong, 0u) << "rank " << rank;
  };
  std::thread thread([&play] { play(1); });
  play(0);
  thread.join();
}

REGISTER_TYPED_TEST_SUITE_P(DeviceRows, come_with_their_message_whoever_is_first, may_be_overwritten_after_the_event,
                            leave_their_place_alone_while_work_uses_it, are_cut_off_at_their_place,
                            are_with_some_messages_only, of_a_peer_that_goes_hold_up_nobody,
                            follow_each_other_through_threads);

}  // namespace tandem
