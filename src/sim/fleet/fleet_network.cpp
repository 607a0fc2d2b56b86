// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "sim/fleet/fleet_network.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "base/format.h"
#include "transport/frame.h"

namespace tandem {
namespace {

constexpr Nanoseconds kSayAgain = 20 * kMillisecond;  // that an endpoint is here
constexpr std::int32_t kSendsMax = 64;

// What one endpoint has to know of another.
struct Hello {
  std::uint64_t address;
  PeerRank from, to;
};

}  // namespace

// ---- control channels

struct FleetNetwork::Link {
  struct Item {
    Nanoseconds due = 0;
    std::vector<std::byte> bytes;
    std::string end = {};  // not empty: the other side is gone, and why
  };
  Process processes[2];    // who dialled, who was dialled
  std::deque<Item> to[2];  // what waits for each
};

class FleetNetwork::Channel final : public ControlChannel {
 public:
  Channel(FleetNetwork& network, std::shared_ptr<Link> link, int side)
      : network_(network), link_(std::move(link)), side_(side), life_(node().life) {}
  ~Channel() override {
    // Of a process that vanished without a word nobody hears.
    if (is_there() || !node().silent) push({.bytes = {}, .end = "it has closed the connection"});
  }

  void post(const ControlMessage& message) override {
    if (is_there()) push({.bytes = to_bytes(message)});
  }

  Status move(std::vector<ControlMessage>& came) override {
    std::deque<Link::Item>& waiting = link_->to[side_];
    if (network_.is_cut(link_->processes[0], link_->processes[1])) return Status::ok();
    while (!waiting.empty() && waiting.front().due <= network_.stage_.now()) {
      const Link::Item item = std::move(waiting.front());
      waiting.pop_front();
      if (!item.end.empty()) return {ErrorCode::kUnavailable, item.end};
      Result<ControlMessage> message = parse_control(item.bytes);
      if (!message) return {message.error().code(), message.error().message()};
      came.push_back(std::move(message.value()));
    }
    return Status::ok();
  }

  std::size_t unsent() const override {
    std::size_t bytes = 0;
    for (const Link::Item& item : link_->to[1 - side_]) bytes += item.bytes.size();
    return bytes;
  }
  void allow_long_messages() override {}
  int fd() const override { return -1; }
  short events() const override { return 0; }

 private:
  Process self() const { return link_->processes[side_]; }
  const Node& node() const { return network_.nodes_[static_cast<std::size_t>(self())]; }
  bool is_there() const { return node().held != nullptr && node().life == life_; }

  void push(Link::Item item) {
    std::deque<Link::Item>& waiting = link_->to[1 - side_];
    item.due = network_.stage_.now() + network_.latency();
    if (!waiting.empty()) item.due = std::max(item.due, waiting.back().due);  // in order
    const Process other = link_->processes[1 - side_];
    network_.stage_.at(item.due, [&network = network_, other] { network.wake(other); });
    waiting.push_back(std::move(item));
  }

  FleetNetwork& network_;
  const std::shared_ptr<Link> link_;
  const int side_;
  const std::int64_t life_;
};

// ---- endpoints of hand-overs

class FleetNetwork::Endpoint final : public MeetingTransport {
 public:
  Endpoint(FleetNetwork& network, std::uint64_t address, Process process, PeerRank rank, std::int32_t peers,
           std::size_t bytes_max)
      : network_(network),
        address_(address),
        process_(process),
        rank_(rank),
        life_(node().life),
        bytes_max_(bytes_max),
        peers_(static_cast<std::size_t>(peers)) {}
  ~Endpoint() override { network_.forget(*this); }

  TransportCapabilities capabilities() const override {
    return {.zero_copy = false, .message_bytes_max = bytes_max_, .sends_max = kSendsMax};
  }
  PeerRank rank() const override { return rank_; }
  std::int32_t peers() const override { return static_cast<std::int32_t>(peers_.size()); }
  std::uint64_t address() const { return address_; }
  Process process() const { return process_; }
  bool is_there() const { return node().held != nullptr && node().life == life_; }

  std::vector<std::byte> hello_for(PeerRank peer) const override {
    const Hello hello{address_, rank_, peer};
    const auto* bytes = reinterpret_cast<const std::byte*>(&hello);
    return {bytes, bytes + sizeof hello};
  }
  void connect(std::span<const std::byte> bytes) override {
    Hello hello{};
    if (bytes.size() != sizeof hello) throw Error(ErrorCode::kInvalidData, "this is no hello");
    std::memcpy(&hello, bytes.data(), sizeof hello);
    if (hello.to != rank_ || hello.from < 0 || hello.from >= peers())
      throw Error(ErrorCode::kInvalidArgument, format("a hello for rank {} came to {}", hello.to, rank_));
    peer(hello.from).address = hello.address;
  }
  bool ready() override {
    if (network_.stage_.now() >= said_ + kSayAgain || said_ == 0) {
      said_ = std::max<Nanoseconds>(network_.stage_.now(), 1);
      for (PeerRank to = 0; to < peers(); ++to)
        if (peer(to).address != 0) say_here(to);
    }
    return std::ranges::all_of(
        peers_, [&](const Peer& p) { return p.address == 0 || std::ranges::find(heard_, p.address) != heard_.end(); });
  }
  void hear(std::uint64_t address) {
    heard_.push_back(address);
    network_.wake(process_);
  }

  Status register_region(std::span<std::byte>) override { return Status::ok(); }

  Status post_send(PeerRank to, std::span<const std::byte> message, OperationId operation) override {
    if (!speaks_to(to)) return {ErrorCode::kUnavailable, format("rank {} is gone", to)};
    events_.push_back({TransportEvent::Kind::kSent, to, operation, 0});
    if (is_there()) network_.send(*this, to, peer(to).address, {message.begin(), message.end()});
    return Status::ok();
  }
  Status post_receive(PeerRank from, std::span<std::byte> buffer, OperationId operation) override {
    if (!speaks_to(from)) return {ErrorCode::kUnavailable, format("rank {} is gone", from)};
    peer(from).posted.push_back({buffer, operation});
    match(from);
    return Status::ok();
  }

  std::size_t poll(std::span<TransportEvent> events, Nanoseconds wait) override {
    Actor* const actor = Actor::current();
    poller_ = actor;
    // Whoever looks again and again takes time too.
    if (events_.empty() && !std::exchange(woken_, false) && actor) actor->wait(wait > 0 ? wait : kMicrosecond);
    const std::size_t count = std::min(events.size(), events_.size());
    std::copy_n(events_.begin(), count, events.begin());
    events_.erase(events_.begin(), events_.begin() + static_cast<std::ptrdiff_t>(count));
    return count;
  }
  void wake() override {
    if (poller_)
      poller_->wake();
    else
      woken_ = true;
  }

  // When a message that takes so long comes: not before the one before it.
  Nanoseconds in_order(PeerRank to, Nanoseconds after) {
    Nanoseconds& last = peer(to).last_due;
    return last = std::max(last, network_.stage_.now() + after);
  }

  void arrive(PeerRank from, Message message) {
    if (!speaks_to(from)) return;
    peer(from).unread.push_back(std::move(message));
    match(from);
    wake();
  }
  // The endpoint of a peer has ended.
  void lose(std::uint64_t address) {
    for (PeerRank rank = 0; rank < peers(); ++rank) {
      Peer& p = peer(rank);
      if (p.address != address || p.gone) continue;
      p.gone = true;
      for (const Posted& posted : p.posted)
        events_.push_back({TransportEvent::Kind::kPeerGone, rank, posted.operation, 0});
      p.posted.clear();
      wake();
    }
  }

 private:
  struct Posted {
    std::span<std::byte> buffer;
    OperationId operation;
  };
  struct Peer {
    std::uint64_t address = 0;  // none: they do not meet
    bool gone = false;
    std::deque<Posted> posted;
    std::deque<Message> unread;
    Nanoseconds last_due = 0;
  };

  Peer& peer(PeerRank rank) { return peers_[static_cast<std::size_t>(rank)]; }
  const Node& node() const { return network_.nodes_[static_cast<std::size_t>(process_)]; }
  bool speaks_to(PeerRank rank) { return rank >= 0 && rank < peers() && peer(rank).address != 0 && !peer(rank).gone; }

  void say_here(PeerRank to) {
    const Nanoseconds due = network_.stage_.now() + network_.latency();
    network_.stage_.at(due, [&network = network_, mine = address_, from = process_, theirs = peer(to).address] {
      Endpoint* const endpoint = network.find(theirs);
      if (endpoint && !network.is_cut(from, endpoint->process())) endpoint->hear(mine);
    });
  }

  void match(PeerRank from) {
    Peer& p = peer(from);
    while (!p.posted.empty() && !p.unread.empty()) {
      const Posted posted = p.posted.front();
      const Message message = std::move(p.unread.front());
      p.posted.pop_front();
      p.unread.pop_front();
      const std::size_t bytes = std::min(posted.buffer.size(), message.size());
      std::copy_n(message.begin(), bytes, posted.buffer.begin());
      events_.push_back({bytes < message.size() ? TransportEvent::Kind::kTruncated : TransportEvent::Kind::kReceived,
                         from, posted.operation, bytes});
    }
  }

  FleetNetwork& network_;
  const std::uint64_t address_;
  const Process process_;
  const PeerRank rank_;
  const std::int64_t life_;
  const std::size_t bytes_max_;
  std::vector<Peer> peers_;
  std::vector<std::uint64_t> heard_;
  std::deque<TransportEvent> events_;
  Actor* poller_ = nullptr;
  bool woken_ = false;
  Nanoseconds said_ = 0;
};

// ---- the network

FleetNetwork::FleetNetwork(Stage& stage, std::int32_t processes, Rng& rng)
    : stage_(stage), rng_(rng), nodes_(static_cast<std::size_t>(processes)) {}

FleetNetwork::~FleetNetwork() {
  TANDEM_CHECK(endpoints_.empty(), "a simulated network ends before its endpoints");
}

void FleetNetwork::appear(Process process, StageProcess& held, Accept accept, std::function<void()> wake) {
  Node& node = nodes_[static_cast<std::size_t>(process)];
  node = {.held = &held, .accept = std::move(accept), .wake = std::move(wake), .life = node.life + 1, .silent = false};
}

void FleetNetwork::vanish(Process process, bool silent) {
  Node& node = nodes_[static_cast<std::size_t>(process)];
  node.held = nullptr;
  node.accept = nullptr;
  node.wake = nullptr;
  node.silent = silent;
}

bool FleetNetwork::is_cut(Process a, Process b) const {
  return cuts_.contains(std::minmax(a, b));
}

void FleetNetwork::cut(Process a, Process b) {
  cuts_.insert(std::minmax(a, b));
}

void FleetNetwork::heal(Process a, Process b) {
  cuts_.erase(std::minmax(a, b));
  for (const std::shared_ptr<Link>& link : std::exchange(waiting_links_, {})) open(link);
  wake(a);
  wake(b);
}

void FleetNetwork::heal_all() {
  while (!cuts_.empty()) heal(cuts_.begin()->first, cuts_.begin()->second);
}

Nanoseconds FleetNetwork::random_time(Nanoseconds most) {
  return static_cast<Nanoseconds>(rng_.below(static_cast<std::uint64_t>(most) + 1));
}

Nanoseconds FleetNetwork::latency() {
  return latency_min + random_time(latency_min);
}

void FleetNetwork::wake(Process process) {
  const Node& node = nodes_[static_cast<std::size_t>(process)];
  if (node.wake) node.wake();
}

std::unique_ptr<ControlChannel> FleetNetwork::dial(Process from, Process to) {
  auto link = std::make_shared<Link>();
  link->processes[0] = from;
  link->processes[1] = to;
  auto channel = std::make_unique<Channel>(*this, link, 0);
  open(std::move(link));
  return channel;
}

// Whoever is cut off tries on until he is not any more.
void FleetNetwork::open(std::shared_ptr<Link> link) {
  if (is_cut(link->processes[0], link->processes[1])) {
    waiting_links_.push_back(std::move(link));
    return;
  }
  stage_.at(stage_.now() + latency(), [this, link] {
    const Node& node = nodes_[static_cast<std::size_t>(link->processes[1])];
    if (node.accept) return node.accept(std::make_unique<Channel>(*this, link, 1));
    if (node.silent) return;
    link->to[0].push_back({.due = stage_.now(), .bytes = {}, .end = "Connection refused"});
    wake(link->processes[0]);
  });
}

std::unique_ptr<MeetingTransport> FleetNetwork::make_endpoint(Process process, PeerRank seat, std::int32_t peers,
                                                              std::size_t message_bytes_max) {
  auto endpoint = std::make_unique<Endpoint>(*this, ++last_address_, process, seat, peers, message_bytes_max);
  endpoints_[endpoint->address()] = endpoint.get();
  return endpoint;
}

FleetNetwork::Endpoint* FleetNetwork::find(std::uint64_t address) {
  const auto found = endpoints_.find(address);
  return found == endpoints_.end() ? nullptr : found->second;
}

// Its peers hear of it, unless it is lost without a word.
void FleetNetwork::forget(Endpoint& endpoint) {
  const std::uint64_t address = endpoint.address();
  endpoints_.erase(address);
  const Process process = endpoint.process();
  if (!endpoint.is_there() && nodes_[static_cast<std::size_t>(process)].silent) return;
  stage_.at(stage_.now() + latency(), [this, address, process] {
    for (const auto& [other, peer] : endpoints_)
      if (!is_cut(process, peer->process())) peer->lose(address);
  });
}

void FleetNetwork::send(Endpoint& from, PeerRank to, std::uint64_t address, Message message) {
  ++counts.messages;
  send_stale(from, to, address, message);
  const auto happens = [&](double probability, std::int64_t& count) {
    if (probability <= 0 || rng_.uniform() >= probability) return false;
    ++count;
    return true;
  };
  if (happens(faults.lose, counts.lost)) return;
  const bool overtaken = happens(faults.delay, counts.delayed);
  const Nanoseconds due =
      overtaken ? stage_.now() + latency() + random_time(faults.delay_max) : from.in_order(to, latency());
  if (happens(faults.repeat, counts.repeated)) deliver(from, address, message, due + latency());
  if (happens(faults.damage, counts.damaged))
    message[rng_.below(message.size())] ^= static_cast<std::byte>(1u << rng_.below(8));
  deliver(from, address, std::move(message), due);
}

void FleetNetwork::deliver(const Endpoint& from, std::uint64_t address, Message message, Nanoseconds due) {
  stage_.at(due, [this, process = from.process(), seat = from.rank(), address, message = std::move(message)]() mutable {
    Endpoint* const endpoint = find(address);
    if (endpoint && !is_cut(process, endpoint->process())) endpoint->arrive(seat, std::move(message));
  });
}

void FleetNetwork::send_stale(const Endpoint& from, PeerRank to, std::uint64_t address, const Message& message) {
  if (message.size() < sizeof(FrameHeader)) return;
  FrameHeader header;
  std::memcpy(&header, message.data(), sizeof header);
  const FrameKey key{from.rank(), to,           static_cast<std::uint16_t>(header.kind),
                     header.step, header.layer, header.micro_batch};
  const auto found = earlier_.find(key);
  if (found == earlier_.end()) {
    earlier_[key] = {header.epoch, message};
  } else if (found->second.first != header.epoch) {
    if (rng_.uniform() < faults.stale) {
      ++counts.stale;
      deliver(from, address, found->second.second, stage_.now());
    }
    found->second = {header.epoch, message};
  }
}

}  // namespace tandem
