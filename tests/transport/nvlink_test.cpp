// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "transport/nvlink/nvlink.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <vector>

#include "ops/cuda/cuda_backend.h"
#include "ops/cuda/device.h"
#include "tests/transport/conformance.h"
#include "tests/transport/device_rows.h"
#include "tests/transport/late_device.h"
#include "transport/faulty/faulty.h"

namespace tandem {
namespace {

// Does nothing before it has to.
class LateDevice final : public RowDevice {
 public:
  const std::shared_ptr<LateStream>& stream() const { return stream_; }
  std::span<std::byte> memory() override { return memory_; }
  void fill(std::span<std::byte> bytes, std::uint8_t value) override {
    stream_->give([=] { std::memset(bytes.data(), value, bytes.size()); });
  }
  void read(std::span<const std::byte> bytes) override {
    stream_->give([=, this] {
      const auto* first = reinterpret_cast<const std::uint8_t*>(bytes.data());
      read_.emplace_back(first, first + bytes.size());
    });
  }
  std::vector<std::vector<std::uint8_t>> take() override {
    stream_->do_all();
    return std::move(read_);
  }
  // Kept, so that who still uses it is found out.
  void free_memory() override {
    stream_->do_all();
    std::ranges::fill(memory_, kFreed);
  }
  bool untouched_since_freed() const override {
    return std::ranges::all_of(memory_, [](std::byte byte) { return byte == kFreed; });
  }

 private:
  static constexpr std::byte kFreed{0xee};

  std::shared_ptr<LateStream> stream_ = std::make_shared<LateStream>();
  std::vector<std::byte> memory_{kBytes};
  std::vector<std::vector<std::uint8_t>> read_;
};

// A GPU behind a backend: work goes to its stream.
class GpuDevice final : public RowDevice {
 public:
  explicit GpuDevice(int gpu)
      : backend_(make_cuda_backend(gpu)),
        memory_(backend_->allocate(kBytes)),
        ballast_(backend_->allocate(2 * kBallast)),
        patterns_(backend_->allocate_shared(256 * kRow)),
        reads_(backend_->allocate_shared(kReads * kRow)) {
    for (std::size_t value = 0; value < 256; ++value)
      std::memset(patterns_.bytes_data() + value * kRow, static_cast<int>(value), kRow);
  }
  std::unique_ptr<CopyLane> lane() { return backend_->make_copy_lane(); }
  std::span<std::byte> memory() override { return {memory_.bytes_data(), kBytes}; }
  void fill(std::span<std::byte> bytes, std::uint8_t value) override {
    backend_->copy(ballast_.data(), ballast_.bytes_data() + kBallast, kBallast);  // some thirty microseconds
    backend_->copy(bytes.data(), patterns_.bytes_data() + value * kRow, bytes.size());
  }
  void read(std::span<const std::byte> bytes) override {
    ASSERT_LT(read_.size(), kReads);
    backend_->copy(reads_.bytes_data() + read_.size() * kRow, bytes.data(), bytes.size());
    read_.push_back(bytes.size());
  }
  std::vector<std::vector<std::uint8_t>> take() override {
    backend_->synchronise();
    std::vector<std::vector<std::uint8_t>> found;
    for (std::size_t i = 0; i < read_.size(); ++i) {
      const auto* first = reinterpret_cast<const std::uint8_t*>(reads_.bytes_data() + i * kRow);
      found.emplace_back(first, first + read_[i]);
    }
    read_.clear();
    return found;
  }
  void free_memory() override { memory_ = {}; }

 private:
  static constexpr std::size_t kRow = 4096, kReads = 512, kBallast = std::size_t{64} << 20;

  std::unique_ptr<Backend> backend_;
  Buffer memory_, ballast_, patterns_, reads_;
  std::vector<std::size_t> read_;
};

// Of late devices between which copies are late, or early.
class LateNetwork {
 public:
  explicit LateNetwork(std::int32_t peers, bool copies_early = false) {
    std::vector<std::shared_ptr<CopyLane>> lanes;
    for (std::int32_t i = 0; i < peers; ++i) {
      devices_.push_back(std::make_unique<LateDevice>());
      lanes.push_back(std::make_shared<LateLane>(devices_.back()->stream(), copies_early));
    }
    network_.emplace(std::move(lanes), InprocConfig{.sends_max = 8, .receives_max = 8});
  }
  static std::string why_not() { return {}; }
  std::unique_ptr<Transport> endpoint(PeerRank rank) { return network_->endpoint(rank); }
  RowDevice& device(PeerRank rank) { return *devices_[static_cast<std::size_t>(rank)]; }

 private:
  std::vector<std::unique_ptr<LateDevice>> devices_;
  std::optional<NvlinkNetwork> network_;
};

class EarlyCopies : public LateNetwork {
 public:
  explicit EarlyCopies(std::int32_t peers) : LateNetwork(peers, true) {}
};

template <int kGpus>
class GpuNetwork {
 public:
  explicit GpuNetwork(std::int32_t peers) {
    std::vector<std::shared_ptr<CopyLane>> lanes;
    for (std::int32_t i = 0; i < peers; ++i) {
      devices_.push_back(std::make_unique<GpuDevice>(i % kGpus));
      lanes.push_back(devices_.back()->lane());
    }
    network_.emplace(std::move(lanes));
  }
  static std::string why_not() {
    const cuda::DeviceFacts facts = cuda::look_at_device();
    if (std::string reason = cuda::why_unusable(facts); !reason.empty()) return reason;
    return facts.devices < kGpus ? "there is one GPU" : "";
  }
  std::unique_ptr<Transport> endpoint(PeerRank rank) { return network_->endpoint(rank); }
  RowDevice& device(PeerRank rank) { return *devices_[static_cast<std::size_t>(rank)]; }

 private:
  std::vector<std::unique_ptr<GpuDevice>> devices_;
  std::optional<NvlinkNetwork> network_;
};

// Through a decorator that does nothing.
class HarmlessNetwork : public LateNetwork {
 public:
  explicit HarmlessNetwork(std::int32_t peers) : LateNetwork(peers) {}
  std::unique_ptr<Transport> endpoint(PeerRank rank) {
    return std::make_unique<FaultyTransport>(LateNetwork::endpoint(rank), FaultPolicy{}, 0, clock_);
  }

 private:
  inline static const RealClock clock_;  // outlives the endpoints
};

using Networks = testing::Types<LateNetwork, EarlyCopies, HarmlessNetwork, GpuNetwork<1>, GpuNetwork<2>>;
INSTANTIATE_TYPED_TEST_SUITE_P(Nvlink, TransportConformance, Networks);
INSTANTIATE_TYPED_TEST_SUITE_P(Nvlink, DeviceRows, Networks);

TEST(Transport, rows_are_refused_where_there_are_none) {
  InprocNetwork network(2);
  TestWorker worker(network.endpoint(0));
  EXPECT_FALSE(worker.transport().capabilities().device_rows);
  std::vector<std::byte> rows(16);
  const Status send = worker.transport().post_send_rows(1, worker.slot(0, 4), rows, 0);
  EXPECT_EQ(send.error().code(), ErrorCode::kUnsupported);
  EXPECT_EQ(send.error().message(), "message to peer 1 has rows in device memory, which this transport does not carry");
  EXPECT_EQ(worker.transport().post_receive_rows(1, worker.slot(0, 4), rows, 0).error().code(),
            ErrorCode::kUnsupported);
}

// Knows which others it was to reach.
class ReachingLane final : public CopyLane {
 public:
  void reach(const CopyLane& other) override { reached.push_back(&other); }
  CopyPointPtr point() override { return nullptr; }
  CopyPointPtr copy(void*, const void*, std::size_t, const CopyPoint&, const CopyPoint&) override { return nullptr; }
  void follow(const CopyPoint&) override {}
  void wait(const CopyPoint&) override {}
  std::vector<const CopyLane*> reached;
};

TEST(Transport, ways_are_opened_between_those_that_send_each_other_rows) {
  const auto make = [] { return std::make_shared<ReachingLane>(); };
  const std::vector<std::shared_ptr<ReachingLane>> some = {make(), make(), make()}, all = {make(), make(), make()};
  const NvlinkNetwork two_sides({some.begin(), some.end()}, {}, 2), one({all.begin(), all.end()});
  EXPECT_THAT(some[0]->reached, ElementsAre(some[2].get()));
  EXPECT_THAT(some[1]->reached, ElementsAre(some[2].get()));
  EXPECT_THAT(some[2]->reached, IsEmpty());
  EXPECT_THAT(all[0]->reached, ElementsAre(all[1].get(), all[2].get()));
  EXPECT_THAT(all[1]->reached, ElementsAre(all[2].get()));
  EXPECT_THAT(all[2]->reached, IsEmpty());
}

// Of a device that has failed: nothing ends.
class FailedLane final : public CopyLane {
 public:
  explicit FailedLane(std::shared_ptr<LateStream> stream) : lane_(std::move(stream)) {}
  void reach(const CopyLane&) override {}
  CopyPointPtr point() override { return lane_.point(); }
  CopyPointPtr copy(void* to, const void* from, std::size_t bytes, const CopyPoint& from_ready,
                    const CopyPoint& to_ready) override {
    return lane_.copy(to, from, bytes, from_ready, to_ready);
  }
  void follow(const CopyPoint& point) override { lane_.follow(point); }
  void wait(const CopyPoint&) override {
    ++waits;
    throw Error(ErrorCode::kInternal, "the device has failed");
  }
  int waits = 0;

 private:
  LateLane lane_;
};

TEST(Transport, an_endpoint_whose_device_has_failed_goes_without_its_copies) {
  const auto lane = std::make_shared<FailedLane>(std::make_shared<LateStream>());
  NvlinkNetwork network({lane, lane});
  TestWorker sender(network.endpoint(0));
  std::vector<std::byte> rows(128);
  {
    TestWorker receiver(network.endpoint(1));
    ASSERT_TRUE(receiver.transport().post_receive_rows(0, receiver.slot(0, 4), std::span(rows).last(64), 0));
    ASSERT_TRUE(sender.transport().post_send_rows(1, sender.slot(0, 4), std::span(rows).first(64), 0));
  }
  EXPECT_EQ(lane->waits, 1);
  EXPECT_EQ(sender.transport().post_send(1, sender.slot(0, 4), 1).error().code(), ErrorCode::kUnavailable);
}

// Faults of messages with rows: those that need no copy of what nobody here can read.
class NvlinkFaults : public testing::Test {
 protected:
  void start(const FaultPolicy& policy) {
    auto faulty = std::make_unique<FaultyTransport>(network_.endpoint(0), policy, 1, clock_);
    faulty_ = faulty.get();
    sender_ = std::make_unique<TestWorker>(std::move(faulty));
    receiver_ = std::make_unique<TestWorker>(network_.endpoint(1));
    for (std::size_t i = 0; i < 4; ++i)
      ASSERT_TRUE(receiver_->transport().post_receive_rows(0, receiver_->slot(i, 8), place(i), i));
  }
  std::span<std::byte> place(std::size_t i) { return network_.device(1).memory().subspan(i * 64, 64); }
  Status send(std::uint8_t value, OperationId operation) {
    network_.device(0).fill(network_.device(0).memory().first(64), value);
    return sender_->transport().post_send_rows(1, sender_->slot(0, 8), network_.device(0).memory().first(64),
                                               operation);
  }
  std::vector<std::uint8_t> found(std::size_t i) {
    network_.device(1).read(place(i));
    return network_.device(1).take().at(0);
  }

  LateNetwork network_{2};
  const VirtualClock clock_;
  std::unique_ptr<TestWorker> sender_, receiver_;
  FaultyTransport* faulty_ = nullptr;
};

TEST_F(NvlinkFaults, what_is_dropped_counts_as_sent_and_the_next_rows_take_its_place) {
  bool drops = true;
  start({.drop = 1, .applies = [&](PeerRank, std::span<const std::byte>) { return drops; }});
  ASSERT_TRUE(send(1, 0));
  EXPECT_THAT(sender_->events(1), ElementsAre(sent(1, 0)));
  drops = false;
  ASSERT_TRUE(send(2, 1));
  EXPECT_THAT(sender_->events(1), ElementsAre(sent(1, 1)));
  EXPECT_EQ(receiver_->events(1).size(), 1u);
  EXPECT_EQ(found(0), std::vector<std::uint8_t>(64, 2));
  EXPECT_EQ(faulty_->counts().dropped, 1u);
}

TEST_F(NvlinkFaults, what_would_be_copied_goes_unharmed) {
  start({.delay = 1, .duplicate = 1, .corrupt = 1, .delay_by = 100, .copies_max = 2});
  ASSERT_TRUE(send(1, 0));
  EXPECT_THAT(sender_->events(1), ElementsAre(sent(1, 0)));
  EXPECT_EQ(receiver_->events(1).size(), 1u);
  EXPECT_EQ(found(0), std::vector<std::uint8_t>(64, 1));
  EXPECT_EQ(faulty_->counts().uncopied, 2u);
}

TEST_F(NvlinkFaults, an_endpoint_that_dies_leaves_what_it_had_sent) {
  start({.fail_after = 1});
  ASSERT_TRUE(send(1, 0));
  ASSERT_TRUE(send(2, 1));
  EXPECT_TRUE(faulty_->failed());
  EXPECT_THAT(sender_->events(2), UnorderedElementsAre(sent(1, 0), peer_gone(1, 1)));
  EXPECT_EQ(send(3, 2).error().code(), ErrorCode::kUnavailable);
  const std::vector<TransportEvent> events = receiver_->events(4);
  ASSERT_EQ(events.size(), 4u);
  EXPECT_EQ(events[0].row_bytes, 64u);
  for (std::size_t i = 1; i < 4; ++i) EXPECT_EQ(events[i].kind, TransportEvent::Kind::kPeerGone);
  EXPECT_EQ(found(0), std::vector<std::uint8_t>(64, 1));
}

}  // namespace
}  // namespace tandem
