// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "roles/hand_over_bench.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <memory>
#include <span>
#include <sstream>
#include <utility>

#include "base/errno_text.h"
#include "base/format.h"
#include "roles/control_connection.h"
#include "roles/control_message.h"
#include "transport/frame.h"
#include "transport/sealed/sealed.h"
#include "transport/ucx/ucx.h"

namespace tandem {
namespace {

constexpr Nanoseconds kPatience = 60 * kSecond;
constexpr std::int32_t kRowBytes = 1024;
constexpr std::int64_t kWarmUpRoundsMax = 100;

// Reorders times, of which there is one at least.
Nanoseconds median(std::vector<Nanoseconds>& times) {
  const auto middle = times.begin() + std::ssize(times) / 2;
  std::ranges::nth_element(times, middle);
  return *middle;
}

// Bytes over a socket pair, length first: the hellos, before there is anything else.
void put(int fd, std::span<const std::byte> bytes) {
  const std::uint64_t length = bytes.size();
  if (write(fd, &length, sizeof length) != sizeof length ||
      write(fd, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size()))
    throw Error(ErrorCode::kUnavailable, "hand-over bench: the other process is gone");
}

std::vector<std::byte> get(int fd) {
  std::uint64_t length = 0;
  constexpr std::uint64_t kHelloBytesMax = 1 << 20;
  if (recv(fd, &length, sizeof length, MSG_WAITALL) != sizeof length || length > kHelloBytesMax)
    throw Error(ErrorCode::kUnavailable, "hand-over bench: the other process is gone");
  std::vector<std::byte> bytes(length);
  if (recv(fd, bytes.data(), length, MSG_WAITALL) != static_cast<ssize_t>(length))
    throw Error(ErrorCode::kUnavailable, "hand-over bench: the other process is gone");
  return bytes;
}

// One of the two processes.
class Side {
 public:
  Side(PeerRank rank, int socket, const HandOverBench& bench, bool sealed) : peer_(1 - rank) {
    const std::int64_t largest = *std::ranges::max_element(bench.sizes);
    const auto bytes = static_cast<std::size_t>(largest) + sizeof(FrameHeader);
    memory_.resize(2 * bytes);
    UcxConfig config{.message_bytes_max = bytes + kSealBytes, .spin = kPatience, .transports = bench.transports};
    config.notice_dead_peers = !names_shared_memory(bench.transports);
    std::unique_ptr<UcxTransport> transport = UcxTransport::make(rank, 2, config);
    put(socket, transport->hello_for(peer_));
    transport->connect(get(socket));
    if (const Status ready = transport->wait_until_ready(kPatience); !ready) throw ready.error();
    transport_ = std::move(transport);
    if (sealed) seal();
    if (const Status registered = transport_->register_region(memory_); !registered) throw registered.error();
    limits_ = {.ranks = 2, .layers = 1, .micro_batches = 1, .hidden = kRowBytes / 4, .hand_over_row_bytes = kRowBytes};
    limits_.rows_max = static_cast<std::int32_t>(largest / kRowBytes);
  }

  // Medians of rounds, in nanoseconds; the side that answers measures nothing.
  Nanoseconds run(std::int64_t bytes, bool frames, bool first, std::int64_t rounds) {
    std::vector<Nanoseconds> times;
    times.reserve(static_cast<std::size_t>(rounds));
    const std::span<std::byte> out = std::span(memory_).first(static_cast<std::size_t>(bytes) + sizeof(FrameHeader));
    const std::span<std::byte> in = std::span(memory_).subspan(memory_.size() / 2, out.size());
    for (std::int64_t i = -std::min(rounds, kWarmUpRoundsMax); i < rounds; ++i) {
      post(transport_->post_receive(peer_, in, 0));
      const Nanoseconds begin = clock_.now();
      if (first) send(out, bytes, frames);
      wait_received(in, frames);
      if (!first) send(out, bytes, frames);
      while (sending_) poll();
      if (i >= 0) times.push_back(clock_.now() - begin);
    }
    return median(times);
  }

 private:
  void seal() {
    auto sealed = std::make_unique<SealedTransport>(std::move(transport_));
    const auto key = [](PeerRank from, PeerRank to) { return link_key({}, {}, {.from = from, .to = to}); };
    sealed->set_keys(peer_, key(1 - peer_, peer_), key(peer_, 1 - peer_));
    transport_ = std::move(sealed);
  }

  static void post(const Status& status) {
    if (!status) throw status.error();
  }

  void send(std::span<std::byte> out, std::int64_t bytes, bool frames) {
    FrameHeader header;
    header.kind = FrameKind::kHandOver;
    header.rows = static_cast<std::int32_t>(bytes / kRowBytes);
    if (frames) seal_frame(header, out);
    post(transport_->post_send(peer_, out, 1));
    sending_ = true;
  }

  void wait_received(std::span<const std::byte> in, bool frames) {
    while (!received_) poll();
    received_ = false;
    if (!frames) return;
    if (const Result<FrameHeader> header = check_frame(in, limits_); !header) throw header.error();
  }

  void poll() {
    std::array<TransportEvent, 2> events;
    const std::size_t count = transport_->poll(events, kPatience);
    if (count == 0) throw Error(ErrorCode::kUnavailable, "hand-over bench: the other process does not answer");
    for (const TransportEvent& event : std::span(events).first(count)) {
      if (event.kind == TransportEvent::Kind::kPeerGone)
        throw Error(ErrorCode::kUnavailable, "hand-over bench: the other process is gone");
      (event.operation == 1 ? sending_ : received_) = event.operation != 1;
    }
  }

  const PeerRank peer_;
  const RealClock clock_;
  std::vector<std::byte> memory_;  // outlives the transport
  std::unique_ptr<Transport> transport_;
  FrameLimits limits_;
  bool sending_ = false, received_ = false;
};

std::vector<HandOverTime> take_part(PeerRank rank, int socket, const HandOverBench& bench) {
  const auto us = [&](Side& side, std::int64_t bytes, bool frames) {
    return static_cast<double>(side.run(bytes, frames, rank == 0, bench.rounds)) / 2e3;
  };
  std::vector<HandOverTime> times;
  {
    Side side(rank, socket, bench, false);
    for (const std::int64_t bytes : bench.sizes) {
      const double message = us(side, bytes, false);
      times.push_back({.bytes = bytes, .message_us = message, .frame_us = us(side, bytes, true)});
    }
  }
  Side side(rank, socket, bench, true);
  for (HandOverTime& time : times) time.sealed_us = us(side, time.bytes, true);
  return times;
}

}  // namespace

std::vector<HandOverTime> measure_hand_overs(const HandOverBench& bench) {
  for (const std::int64_t bytes : bench.sizes)
    if (bytes < kRowBytes || bytes % kRowBytes != 0)
      throw Error(ErrorCode::kInvalidArgument,
                  format("a message has {} bytes, must be a multiple of {}", bytes, kRowBytes));
  if (bench.sizes.empty() || bench.rounds < 1) throw Error(ErrorCode::kInvalidArgument, "nothing to measure");
  std::array<int, 2> ends{};
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0)
    throw Error(ErrorCode::kOutOfResources, "cannot make a socket: " + errno_text(errno));
  Descriptor mine(ends[0]), other(ends[1]);
  const pid_t child = fork();
  if (child < 0) throw Error(ErrorCode::kOutOfResources, "cannot fork: " + errno_text(errno));
  if (child == 0) {
    mine.reset();
    try {
      take_part(1, other.get(), bench);
      _exit(0);
    } catch (const Error&) {  // what is wrong here is wrong there, too
      _exit(1);
    }
  }
  other.reset();
  std::vector<HandOverTime> times;
  try {
    times = take_part(0, mine.get(), bench);
  } catch (...) {
    mine.reset();
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    throw;
  }
  waitpid(child, nullptr, 0);
  return times;
}

namespace {

template <class Each>
double median_us(std::int64_t rounds, Each each) {
  const RealClock clock;
  std::vector<Nanoseconds> times;
  for (std::int64_t i = 0; i < rounds; ++i) {
    const Nanoseconds begin = clock.now();
    each();
    times.push_back(clock.now() - begin);
  }
  return static_cast<double>(median(times)) * 1e-3;
}

// Until neither has anything to say.
void shake_hands(TlsSession& front, TlsSession& worker) {
  std::vector<std::byte> wire, none;
  const auto pass = [&](TlsSession& from, TlsSession& to) {
    wire.clear();
    from.take_out(wire);
    if (wire.empty()) return false;
    if (const Status taken = to.receive(wire, none); !taken) throw taken.error();
    return true;
  };
  while (pass(front, worker) || pass(worker, front)) {
  }
}

}  // namespace

TlsTime measure_tls(const Credentials& front, const Credentials& worker, const std::string& host, std::int64_t rounds) {
  std::unique_ptr<TlsSession> near, far;
  TlsTime time;
  time.handshake_us = median_us(rounds, [&] {
    near = front.begin(TlsSide::kFront, host);
    far = worker.begin(TlsSide::kWorker, "");
    shake_hands(*near, *far);
  });
  News news;
  news.event.tokens.resize(64);
  const std::vector<std::byte> message = to_bytes(news);
  std::vector<std::byte> wire, plain;
  time.message_us = median_us(rounds, [&] {
    wire.clear();
    plain.clear();
    near->send(message, wire);
    if (const Status taken = far->receive(wire, plain); !taken) throw taken.error();
  });
  return time;
}

double ucx_perftest_us(const std::string& transports, std::int64_t bytes, std::int64_t rounds) {
  constexpr int kPort = 13337;
  const std::string program = format("UCX_TLS={} ucx_perftest -p {}", transports, kPort);
  const std::string command = format(
      "command -v ucx_perftest >/dev/null && {{ timeout 60 env {0} >/dev/null 2>&1 & sleep 0.3; timeout 60 env {0} "
      "localhost -t ucp_am_lat -s {1} -n {2} -w 100 -f -v 2>/dev/null; wait; }}",
      program, bytes, rounds);
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command.c_str(), "re"), pclose);
  if (!pipe) return 0;
  // The last line of numbers: iterations, median, average, …
  double median = 0;
  for (std::array<char, 512> line; fgets(line.data(), line.size(), pipe.get());) {
    std::istringstream words(line.data());
    char comma = 0;
    double iterations = 0, value = 0;
    if (words >> iterations && (words.peek() != ',' || words >> comma) && words >> value) median = value;
  }
  return median;
}

}  // namespace tandem
