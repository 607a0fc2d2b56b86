// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "transport/ucx/ucx.h"

#include <algorithm>
#include <cstring>
#include <thread>

#include "base/check.h"
#include "base/format.h"
#include "transport/ucx/hello.h"
#include "transport/ucx/ucx_peer.h"
#include "transport/ucx/ucx_worker.h"

namespace tandem {
namespace {

constexpr Nanoseconds kSpinDefault = 20'000;
constexpr Nanoseconds kGoodByeMax = 200 * kMillisecond;

Nanoseconds spin_time(const UcxConfig& config, std::int32_t peers) {
  if (config.spin) return *config.spin;
  return std::thread::hardware_concurrency() < static_cast<unsigned>(peers) ? 0 : kSpinDefault;
}

class UcxEndpoint final : public UcxTransport {
 public:
  UcxEndpoint(PeerRank rank, std::int32_t peers, const UcxConfig& config)
      : config_(config), rank_(rank), spin_(spin_time(config, peers)), worker_(config), address_(worker_.address()) {
    for (PeerRank peer = 0; peer < peers; ++peer)
      peers_.push_back(std::make_unique<UcxPeer>(worker_, rank, peer, config));
    for (const unsigned id : {kUcxMessage, kUcxFinished, kUcxBye, kUcxHello}) {
      handlers_[id] = {this, id};
      worker_.handle_messages(id, &UcxEndpoint::came, &handlers_[id]);
    }
  }

  ~UcxEndpoint() override {
    const RealClock clock;
    const Nanoseconds end = clock.now() + kGoodByeMax;
    go_on();
    for (const auto& peer : peers_) peer->leave();
    const auto busy = [this] { return std::ranges::any_of(peers_, [](const auto& peer) { return peer->leaving(); }); };
    while (busy() && clock.now() < end) worker_.progress();
    for (const auto& peer : peers_) peer->close();
    while (busy() && clock.now() < end) {
      worker_.progress();
      for (const auto& peer : peers_) peer->close();
    }
    for (const auto& peer : peers_) peer->release_arrivals();
  }

  TransportCapabilities capabilities() const override {
    return {.zero_copy = true, .message_bytes_max = config_.message_bytes_max, .sends_max = config_.sends_max};
  }
  PeerRank rank() const override { return rank_; }
  std::int32_t peers() const override { return static_cast<std::int32_t>(peers_.size()); }
  Status register_region(std::span<std::byte> region) override { return worker_.register_region(region); }

  Status post_send(PeerRank to, std::span<const std::byte> message, OperationId operation) override {
    if (Status status = check_post("message", to, message); !status) return status;
    if (message.size() > config_.message_bytes_max)
      return {ErrorCode::kInvalidArgument, format("message to peer {} has {} bytes, limit is {} (message_bytes_max)",
                                                  to, message.size(), config_.message_bytes_max)};
    return peer(to).post_send(message, operation, worker_.region_of(message));
  }

  Status post_receive(PeerRank from, std::span<std::byte> buffer, OperationId operation) override {
    if (Status status = check_post("receive buffer", from, buffer); !status) return status;
    const Status status = peer(from).post_receive(buffer, operation, worker_.region_of(buffer));
    if (status) go_on();  // the message may be here already, and its sender may wait for the word
    return status;
  }

  std::size_t poll(std::span<TransportEvent> events, Nanoseconds wait) override {
    const RealClock clock;
    go_on();
    std::size_t count = take(events);
    if (wait <= 0) return count;
    const Nanoseconds begin = clock.now(), end = begin + std::min(wait, kWaitMax);
    while (count == 0 && !worker_.take_wake()) {
      const Nanoseconds now = clock.now();
      if (now >= end) break;
      if (now - begin >= spin_) worker_.sleep(end - now);
      go_on();
      count = take(events);
    }
    return count;
  }

  void wake() override { worker_.wake(); }

  std::vector<std::byte> hello_for(PeerRank to) const override {
    TANDEM_CHECK(to >= 0 && to < peers(), format("hello for rank {} of {} peers", to, peers()));
    return to_bytes({.from = rank_,
                     .to = to,
                     .peers = peers(),
                     .sends_max = config_.sends_max,
                     .message_bytes_max = config_.message_bytes_max,
                     .token = peers_[static_cast<std::size_t>(to)]->token_of_peer(),
                     .address = address_});
  }

  void connect(std::span<const std::byte> bytes) override {
    Result<UcxHello> parsed = parse_hello(bytes);
    if (!parsed) throw parsed.error();
    const UcxHello& hello = parsed.value();
    const auto refuse = [&hello](std::string why) {
      throw Error(ErrorCode::kInvalidArgument, format("ucx hello of rank {}: {}", hello.from, why));
    };
    if (hello.to != rank_ || hello.peers != peers())
      refuse(format("it is for rank {} of {}, this is rank {} of {}", hello.to, hello.peers, rank_, peers()));
    if (hello.sends_max != config_.sends_max || hello.message_bytes_max != config_.message_bytes_max)
      refuse(format("it sends {} messages of at most {} bytes at a time, this endpoint {} of {}", hello.sends_max,
                    hello.message_bytes_max, config_.sends_max, config_.message_bytes_max));
    if (peer(hello.from).connected()) refuse("it is connected already");
    peer(hello.from).connect(hello.address, hello.token);
  }

  void give_up(PeerRank rank) override {
    TANDEM_CHECK(rank >= 0 && rank < peers(), format("rank {} of {} peers is given up", rank, peers()));
    peer(rank).lose();
    go_on();
  }

  bool ready() override {
    go_on();
    return std::ranges::all_of(peers_, [](const auto& peer) { return !peer->connected() || peer->ready(); });
  }

 private:
  static constexpr Nanoseconds kWaitMax = 3600 * kSecond;  // keeps the end from overflowing

  struct Handler {
    UcxEndpoint* endpoint = nullptr;
    unsigned id = 0;
  };

  UcxPeer& peer(PeerRank rank) { return *peers_[static_cast<std::size_t>(rank)]; }

  std::string not_ready() const override {
    std::vector<std::string> missing;
    for (std::size_t rank = 0; rank < peers_.size(); ++rank)
      if (peers_[rank]->connected() && !peers_[rank]->ready()) missing.push_back(format("{}", rank));
    return join(missing, ", ");
  }

  Status check_post(const char* what, PeerRank rank, std::span<const std::byte> bytes) {
    if (rank < 0 || rank >= peers())
      return {ErrorCode::kInvalidArgument, format("{} names peer {}, limit is {} peers", what, rank, peers())};
    if (!bytes.empty() && !worker_.region_of(bytes))
      return {ErrorCode::kInvalidArgument, format("{} of {} bytes for peer {} is in none of {} registered regions",
                                                  what, bytes.size(), rank, worker_.regions())};
    if (!peer(rank).connected()) return {ErrorCode::kUnavailable, format("peer {} is not connected", rank)};
    return Status::ok();
  }

  void go_on() {
    worker_.progress();
    for (const auto& peer : peers_) peer->go_on();
  }

  // Begins with another peer each time, so that a short list of events does not always tell of the same one.
  std::size_t take(std::span<TransportEvent> events) {
    std::size_t count = 0;
    for (std::size_t i = 0; i < peers_.size() && count < events.size(); ++i)
      count += peers_[(first_ + i) % peers_.size()]->take(events.subspan(count));
    if (count > 0) first_ = (first_ + 1) % peers_.size();
    return count;
  }

  static ucs_status_t came(void* argument, const void* header, std::size_t header_bytes, void* data, std::size_t bytes,
                           const ucp_am_recv_param_t* param) {
    const auto* handler = static_cast<const Handler*>(argument);
    UcxHeader read;
    if (header_bytes != sizeof read) return UCS_OK;
    std::memcpy(&read, header, sizeof read);
    UcxEndpoint& endpoint = *handler->endpoint;
    if (read.from < 0 || read.from >= endpoint.peers()) return UCS_OK;
    UcxPeer& peer = endpoint.peer(read.from);
    if (read.token != peer.token_of_peer()) return UCS_OK;
    switch (handler->id) {
      case kUcxMessage: {
        const bool rendezvous = (param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) != 0;
        return peer.on_message(read.number, data, bytes, rendezvous);
      }
      case kUcxFinished:
        peer.on_finished(read.number);
        break;
      case kUcxBye:
        peer.on_bye(read.number);
        break;
      default:
        peer.on_hello();
        break;
    }
    return UCS_OK;
  }

  const UcxConfig config_;
  const PeerRank rank_;
  const Nanoseconds spin_;
  // They outlive the worker: what it still has under way when it ends, it ends then, and says so to them.
  std::vector<std::unique_ptr<UcxPeer>> peers_;
  Handler handlers_[kUcxHello + 1];
  UcxWorker worker_;
  const std::vector<std::byte> address_;
  std::size_t first_ = 0;
};

}  // namespace

std::unique_ptr<UcxTransport> UcxTransport::make(PeerRank rank, std::int32_t peers, const UcxConfig& config) {
  const auto at_least_one = [](const char* what, std::int64_t value) {
    if (value < 1)
      throw Error(ErrorCode::kInvalidArgument, format("ucx transport: {} is {}, at least 1 is needed", what, value));
  };
  at_least_one("peers", peers);
  at_least_one("sends_max", config.sends_max);
  at_least_one("receives_max", config.receives_max);
  if (rank < 0 || rank >= peers)
    throw Error(ErrorCode::kInvalidArgument, format("ucx transport: rank is {}, limit is {} peers", rank, peers));
  return std::make_unique<UcxEndpoint>(rank, peers, config);
}

}  // namespace tandem
