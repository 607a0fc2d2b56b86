// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "transport/inproc/inproc.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <mutex>
#include <span>
#include <thread>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "base/format.h"
#include "transport/inproc/event_queue.h"
#include "transport/inproc/ring.h"

namespace tandem {
namespace {

constexpr Nanoseconds kSpinDefault = 20'000;

struct PostedSend {
  std::span<const std::byte> message;
  OperationId operation = 0;
  std::span<const std::byte> rows = {};
  CopyPointPtr ready = nullptr;  // where they are made
};

struct PostedReceive {
  std::span<std::byte> buffer;
  OperationId operation = 0;
  std::span<std::byte> rows = {};
  CopyPointPtr ready = nullptr;  // where their place is free
};

// One direction between two peers. Invariant: sends or receives is empty, since the second to come completes the first.
struct Channel {
  std::mutex mutex;
  Ring<PostedSend> sends;
  Ring<PostedReceive> receives;
  bool sender_gone = false;
  bool receiver_gone = false;
  CopyPointPtr last_copy = nullptr;  // of rows; it ends after all before it
};

Nanoseconds spin_time(const InprocConfig& config, std::int32_t peers) {
  if (config.spin) return *config.spin;
  return std::thread::hardware_concurrency() < static_cast<unsigned>(peers) ? 0 : kSpinDefault;
}

}  // namespace

// What the endpoints share. Locks: a channel's, then an event queue's; never two channels'. A channel's lock is held
// while bytes are copied, so an endpoint that goes away waits until nobody touches its buffers.
class InprocFabric {
 public:
  InprocFabric(std::int32_t peers, const InprocConfig& config)
      : config_(config), peers_(peers), channels_(static_cast<std::size_t>(peers) * static_cast<std::size_t>(peers)) {
    const auto sends = static_cast<std::size_t>(config.sends_max),
               receives = static_cast<std::size_t>(config.receives_max);
    for (Channel& channel : channels_) {
      channel.sends = Ring<PostedSend>(sends);
      channel.receives = Ring<PostedReceive>(receives);
    }
    const std::size_t capacity = static_cast<std::size_t>(peers) * (sends + receives);
    for (PeerRank rank = 0; rank < peers; ++rank) {
      queues_.push_back(std::make_unique<EventQueue>(capacity, spin_time(config, peers)));
    }
  }

  const InprocConfig& config() const { return config_; }
  std::int32_t peers() const { return peers_; }
  EventQueue& queue(PeerRank rank) { return *queues_[static_cast<std::size_t>(rank)]; }

  bool has_lanes() const { return !config_.lanes.empty(); }
  CopyLane& lane(PeerRank rank) { return *config_.lanes[static_cast<std::size_t>(rank)]; }

  // False when the peer is gone.
  bool send(PeerRank from, PeerRank to, PostedSend send) {
    Channel& channel = between(from, to);
    const std::lock_guard lock(channel.mutex);
    if (channel.receiver_gone) return false;
    if (channel.receives.empty()) {
      channel.sends.push(std::move(send));
    } else {
      deliver(from, to, send, channel.receives.pop());
    }
    return true;
  }

  bool receive(PeerRank from, PeerRank to, PostedReceive receive) {
    Channel& channel = between(from, to);
    const std::lock_guard lock(channel.mutex);
    if (channel.sender_gone) return false;
    if (channel.sends.empty()) {
      channel.receives.push(std::move(receive));
    } else {
      deliver(from, to, channel.sends.pop(), receive);
    }
    return true;
  }

  // Drops what rank has posted and ends what its peers have posted with it. Returns when nothing is copied from or to
  // its memory any more.
  void leave(PeerRank rank) {
    for (PeerRank peer = 0; peer < peers_; ++peer) {
      {
        Channel& outgoing = between(rank, peer);
        const std::lock_guard lock(outgoing.mutex);
        outgoing.sender_gone = true;
        outgoing.sends.clear();
        end_copies(outgoing);
        while (!outgoing.receives.empty()) end(peer, rank, outgoing.receives.pop().operation, false);
      }
      Channel& incoming = between(peer, rank);
      const std::lock_guard lock(incoming.mutex);
      incoming.receiver_gone = true;
      incoming.receives.clear();
      end_copies(incoming);
      while (!incoming.sends.empty()) end(peer, rank, incoming.sends.pop().operation, true);
    }
  }

 private:
  Channel& between(PeerRank from, PeerRank to) {
    return channels_[static_cast<std::size_t>(from) * static_cast<std::size_t>(peers_) + static_cast<std::size_t>(to)];
  }

  void deliver(PeerRank from, PeerRank to, const PostedSend& send, const PostedReceive& receive) {
    const std::size_t bytes = std::min(send.message.size(), receive.buffer.size());
    if (bytes > 0) std::memcpy(receive.buffer.data(), send.message.data(), bytes);
    const std::size_t row_bytes = std::min(send.rows.size(), receive.rows.size());
    CopyPointPtr copied;
    if (row_bytes > 0) {
      copied = lane(from).copy(receive.rows.data(), send.rows.data(), row_bytes, *send.ready, *receive.ready);
      between(from, to).last_copy = copied;
    }
    const bool whole = bytes == send.message.size() && row_bytes == send.rows.size();
    const auto kind = whole ? TransportEvent::Kind::kReceived : TransportEvent::Kind::kTruncated;
    queue(to).push({.event = {kind, from, receive.operation, bytes, row_bytes}, .of_send = false, .rows = copied});
    queue(from).push({.event = {TransportEvent::Kind::kSent, to, send.operation, 0}, .of_send = true, .rows = copied});
  }

  // A copy may wait for work of either peer's device, and for no peer. A device that has failed copies no more.
  void end_copies(Channel& channel) {
    const CopyPointPtr last = std::move(channel.last_copy);
    if (!last) return;
    try {
      config_.lanes.front()->wait(*last);
    } catch (const Error&) {
      return;
    }
  }

  void end(PeerRank owner, PeerRank gone, OperationId operation, bool of_send) {
    queue(owner).push({.event = {TransportEvent::Kind::kPeerGone, gone, operation, 0}, .of_send = of_send});
  }

  const InprocConfig config_;
  const std::int32_t peers_;
  std::vector<Channel> channels_;  // [from][to]
  std::vector<std::unique_ptr<EventQueue>> queues_;
};

namespace {

class InprocEndpoint final : public Transport {
 public:
  InprocEndpoint(std::shared_ptr<InprocFabric> fabric, PeerRank rank)
      : fabric_(std::move(fabric)),
        rank_(rank),
        sends_in_flight_(static_cast<std::size_t>(fabric_->peers())),
        receives_in_flight_(static_cast<std::size_t>(fabric_->peers())) {}
  ~InprocEndpoint() override { fabric_->leave(rank_); }

  TransportCapabilities capabilities() const override {
    const InprocConfig& config = fabric_->config();
    return {.zero_copy = false,
            .message_bytes_max = config.message_bytes_max,
            .sends_max = config.sends_max,
            .device_rows = fabric_->has_lanes()};
  }
  PeerRank rank() const override { return rank_; }
  std::int32_t peers() const override { return fabric_->peers(); }

  Status register_region(std::span<std::byte> region) override {
    regions_.push_back(region);
    return Status::ok();
  }

  Status post_send(PeerRank to, std::span<const std::byte> message, OperationId operation) override {
    return post(to, PostedSend{.message = message, .operation = operation});
  }

  Status post_receive(PeerRank from, std::span<std::byte> buffer, OperationId operation) override {
    return post(from, PostedReceive{.buffer = buffer, .operation = operation});
  }

  Status post_send_rows(PeerRank to, std::span<const std::byte> message, std::span<const std::byte> rows,
                        OperationId operation) override {
    if (!fabric_->has_lanes()) return Transport::post_send_rows(to, message, rows, operation);
    return post(to, PostedSend{.message = message, .operation = operation, .rows = rows, .ready = point()});
  }

  Status post_receive_rows(PeerRank from, std::span<std::byte> buffer, std::span<std::byte> rows,
                           OperationId operation) override {
    if (!fabric_->has_lanes()) return Transport::post_receive_rows(from, buffer, rows, operation);
    return post(from, PostedReceive{.buffer = buffer, .operation = operation, .rows = rows, .ready = point()});
  }

  std::size_t poll(std::span<TransportEvent> events, Nanoseconds wait) override {
    const std::size_t room = std::min(events.size(), taken_.size());
    const std::size_t count = fabric_->queue(rank_).take(std::span(taken_).first(room), wait);
    for (std::size_t i = 0; i < count; ++i) {
      events[i] = taken_[i].event;
      auto& in_flight = taken_[i].of_send ? sends_in_flight_ : receives_in_flight_;
      --in_flight[static_cast<std::size_t>(events[i].peer)];
      if (const CopyPointPtr copied = std::move(taken_[i].rows)) fabric_->lane(rank_).follow(*copied);
    }
    return count;
  }

  void wake() override { fabric_->queue(rank_).wake(); }

 private:
  CopyPointPtr point() { return fabric_->lane(rank_).point(); }

  Status post(PeerRank to, PostedSend send) {
    const std::span<const std::byte> message = send.message;
    if (Status status = check_post("message", to, message); !status) return status;
    const std::size_t bytes_max = fabric_->config().message_bytes_max;
    if (message.size() > bytes_max) {
      return {ErrorCode::kInvalidArgument, format("message to peer {} has {} bytes, limit is {} (message_bytes_max)",
                                                  to, message.size(), bytes_max)};
    }
    std::int32_t& in_flight = sends_in_flight_[static_cast<std::size_t>(to)];
    if (Status status = check_room("sends", to, in_flight, fabric_->config().sends_max); !status) return status;
    if (!fabric_->send(rank_, to, std::move(send))) return gone(to);
    ++in_flight;
    return Status::ok();
  }

  Status post(PeerRank from, PostedReceive receive) {
    if (Status status = check_post("receive buffer", from, receive.buffer); !status) return status;
    std::int32_t& in_flight = receives_in_flight_[static_cast<std::size_t>(from)];
    if (Status status = check_room("receives", from, in_flight, fabric_->config().receives_max); !status) return status;
    if (!fabric_->receive(from, rank_, std::move(receive))) return gone(from);
    ++in_flight;
    return Status::ok();
  }

  Status check_post(const char* what, PeerRank peer, std::span<const std::byte> bytes) const {
    if (peer < 0 || peer >= fabric_->peers()) {
      return {ErrorCode::kInvalidArgument, format("{} names peer {}, limit is {} peers", what, peer, fabric_->peers())};
    }
    const auto holds = [bytes](std::span<const std::byte> region) {
      const auto begin = reinterpret_cast<std::uintptr_t>(bytes.data()),
                 start = reinterpret_cast<std::uintptr_t>(region.data());
      return begin >= start && begin - start <= region.size() && bytes.size() <= region.size() - (begin - start);
    };
    if (!bytes.empty() && std::none_of(regions_.begin(), regions_.end(), holds)) {
      return {ErrorCode::kInvalidArgument, format("{} of {} bytes for peer {} is in none of {} registered regions",
                                                  what, bytes.size(), peer, regions_.size())};
    }
    return Status::ok();
  }

  Status check_room(const char* what, PeerRank peer, std::int32_t in_flight, std::int32_t limit) const {
    if (in_flight < limit) return Status::ok();
    return {ErrorCode::kOutOfResources,
            format("peer {} has {} {} in flight, limit is {} ({}_max)", peer, in_flight, what, limit, what)};
  }

  Status gone(PeerRank peer) const {
    return {ErrorCode::kUnavailable, format("peer {} of {} is gone", peer, fabric_->peers())};
  }

  const std::shared_ptr<InprocFabric> fabric_;
  const PeerRank rank_;
  std::vector<std::span<const std::byte>> regions_;
  // Posted and not yet reported, per peer. They bound the rings of the channels and the queue.
  std::vector<std::int32_t> sends_in_flight_;
  std::vector<std::int32_t> receives_in_flight_;
  std::array<Completion, 64> taken_;  // of one poll
};

std::shared_ptr<InprocFabric> make_fabric(std::int32_t peers, const InprocConfig& config) {
  const auto at_least_one = [](const char* what, std::int64_t value) {
    if (value < 1)
      throw Error(ErrorCode::kInvalidArgument, format("inproc transport: {} is {}, at least 1 is needed", what, value));
  };
  at_least_one("peers", peers);
  at_least_one("sends_max", config.sends_max);
  at_least_one("receives_max", config.receives_max);
  TANDEM_CHECK(config.lanes.empty() || std::ssize(config.lanes) == peers, "a lane for each peer, or none");
  return std::make_shared<InprocFabric>(peers, config);
}

}  // namespace

InprocNetwork::InprocNetwork(std::int32_t peers, const InprocConfig& config)
    : fabric_(make_fabric(peers, config)), taken_(static_cast<std::size_t>(peers)) {}

InprocNetwork::~InprocNetwork() {
  for (std::size_t rank = 0; rank < taken_.size(); ++rank) {
    if (!taken_[rank]) fabric_->leave(static_cast<PeerRank>(rank));
  }
}

std::unique_ptr<Transport> InprocNetwork::endpoint(PeerRank rank) {
  TANDEM_CHECK(rank >= 0 && rank < fabric_->peers(), format("endpoint {} of {} peers", rank, fabric_->peers()));
  TANDEM_CHECK(!taken_[static_cast<std::size_t>(rank)], format("endpoint {} is taken twice", rank));
  taken_[static_cast<std::size_t>(rank)] = true;
  return std::make_unique<InprocEndpoint>(fabric_, rank);
}

}  // namespace tandem
