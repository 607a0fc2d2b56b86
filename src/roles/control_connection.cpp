// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "roles/control_connection.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <memory>
#include <utility>

#include "base/errno_text.h"
#include "base/format.h"

namespace tandem {
namespace {

constexpr std::size_t kUnreadMax = 256 << 20;  // that the peer leaves lying
constexpr std::size_t kReadBytes = 64 << 10;

struct FreeAddresses {
  void operator()(addrinfo* list) const { freeaddrinfo(list); }
};
using HostAddresses = std::unique_ptr<addrinfo, FreeAddresses>;

// Of a host as the deployment file names it, with or without brackets. Empty, with why, when it has none.
HostAddresses look_up(std::string host, std::int32_t port, std::string& why) {
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* list = nullptr;
  const int failure = getaddrinfo(host.c_str(), format("{}", port).c_str(), &hints, &list);
  if (failure != 0) why = format("{} has no address: {}", host, gai_strerror(failure));
  return HostAddresses(failure == 0 ? list : nullptr);
}

Descriptor open_socket(const addrinfo& address) {
  return Descriptor(socket(address.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
}

void send_at_once(const Descriptor& socket) {
  const int on = 1;
  setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

}  // namespace

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  if (this != &other) {
    reset();
    fd_ = other.release();
  }
  return *this;
}

int Descriptor::release() {
  return std::exchange(fd_, -1);
}

void Descriptor::reset() {
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
}

WakePipe::WakePipe() : event_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  if (!event_) throw Error(ErrorCode::kOutOfResources, format("cannot make an eventfd: {}", errno_text(errno)));
}

void WakePipe::wake() const {
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t put = write(event_.get(), &one, sizeof one);
}

void WakePipe::drain() const {
  std::uint64_t count = 0;
  [[maybe_unused]] const ssize_t got = read(event_.get(), &count, sizeof count);
}

Descriptor listen_on(const std::string& host, std::int32_t port) {
  std::string why;
  const HostAddresses addresses = look_up(host, port, why);
  if (!addresses) throw Error(ErrorCode::kInvalidArgument, why);
  Descriptor socket = open_socket(*addresses);
  const int on = 1;
  if (socket) setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (!socket || bind(socket.get(), addresses->ai_addr, addresses->ai_addrlen) != 0 ||
      listen(socket.get(), SOMAXCONN) != 0)
    throw Error(ErrorCode::kUnavailable, format("cannot listen on {}:{}: {}", host, port, errno_text(errno)));
  return socket;
}

Descriptor begin_connect(const std::string& host, std::int32_t port, std::string& why) {
  const HostAddresses addresses = look_up(host, port, why);
  if (!addresses) return Descriptor();
  Descriptor socket = open_socket(*addresses);
  if (!socket || (connect(socket.get(), addresses->ai_addr, addresses->ai_addrlen) != 0 && errno != EINPROGRESS)) {
    why = errno_text(errno);
    return Descriptor();
  }
  send_at_once(socket);
  return socket;
}

std::string connect_failure(const Descriptor& socket) {
  int failure = 0;
  socklen_t size = sizeof failure;
  if (getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &failure, &size) != 0) failure = errno;
  return failure == 0 ? std::string() : errno_text(failure);
}

Descriptor accept_from(const Descriptor& listener) {
  Descriptor socket(accept4(listener.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (socket) send_at_once(socket);
  return socket;
}

ControlConnection::ControlConnection(Descriptor socket, std::unique_ptr<TlsSession> tls)
    : socket_(std::move(socket)), tls_(std::move(tls)) {
  if (tls_) tls_->take_out(out_);
}

std::unique_ptr<ControlConnection> ControlConnection::connecting(Descriptor socket, std::unique_ptr<TlsSession> tls) {
  auto connection = std::make_unique<ControlConnection>(std::move(socket), std::move(tls));
  connection->connecting_ = true;
  return connection;
}

short ControlConnection::events() const {
  if (connecting_) return POLLOUT;
  return static_cast<short>(POLLIN | (wants_to_write() ? POLLOUT : 0));
}

// Whether the other end has answered; why: it has refused.
bool ControlConnection::connected(std::string& why) {
  if (!connecting_) return true;
  pollfd asked{fd(), POLLOUT, 0};
  if (poll(&asked, 1, 0) == 0) return false;
  why = connect_failure(socket_);
  connecting_ = false;
  return why.empty();
}

void ControlConnection::post(const ControlMessage& message) {
  const std::vector<std::byte> bytes = to_bytes(message);
  if (unsent() + bytes.size() > kUnreadMax) overflown_ = true;
  if (overflown_) return;
  out_.erase(out_.begin(), out_.begin() + static_cast<std::ptrdiff_t>(written_));
  written_ = 0;
  if (!tls_)
    out_.insert(out_.end(), bytes.begin(), bytes.end());
  else if (tls_->established())
    tls_->send(bytes, out_);
  else
    unsent_.insert(unsent_.end(), bytes.begin(), bytes.end());
}

Status ControlConnection::write_some() {
  if (overflown_) return {ErrorCode::kOutOfResources, format("it leaves more than {} bytes unread", kUnreadMax)};
  while (wants_to_write()) {
    const ssize_t count = ::send(fd(), out_.data() + written_, out_.size() - written_, MSG_NOSIGNAL);
    if (count >= 0) {
      written_ += static_cast<std::size_t>(count);
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      break;
    } else if (errno != EINTR) {
      return {ErrorCode::kUnavailable, format("cannot write to it: {}", errno_text(errno))};
    }
  }
  return Status::ok();
}

Status ControlConnection::read_some(bool& ended) {
  std::array<std::byte, kReadBytes> bytes;
  while (in_.size() <= bytes_max_ + kControlHeaderBytes) {  // the rest another time
    const ssize_t count = recv(fd(), bytes.data(), bytes.size(), 0);
    if (count == 0) {
      ended = true;
      return Status::ok();
    }
    if (count > 0) {
      if (Status status = receive(std::span(bytes).first(static_cast<std::size_t>(count))); !status) return status;
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      return Status::ok();
    } else if (errno != EINTR) {
      return {ErrorCode::kUnavailable, format("cannot read from it: {}", errno_text(errno))};
    }
  }
  return Status::ok();
}

Status ControlConnection::receive(std::span<const std::byte> bytes) {
  if (!tls_) {
    in_.insert(in_.end(), bytes.begin(), bytes.end());
    return Status::ok();
  }
  Status status = tls_->receive(bytes, in_);
  tls_->take_out(out_);
  if (tls_->established() && !unsent_.empty()) tls_->send(std::exchange(unsent_, {}), out_);
  // Who speaks plainly is told so in the same way.
  return !status && tls_->spoken_to_plainly() ? refuse(std::move(status)) : status;
}

// Says why, in the clear, to one who does not speak TLS, or should not.
Status ControlConnection::refuse(Status why) {
  const std::vector<std::byte> bytes = to_bytes(Refusal{why.error().code(), why.error().message()});
  out_.insert(out_.end(), bytes.begin(), bytes.end());
  return why;
}

Status ControlConnection::take_messages(std::vector<ControlMessage>& came) {
  constexpr std::byte kTlsHandshake{22}, kTlsVersion{3};
  if (!tls_ && !spoken_ && in_.size() > 1 && in_[0] == kTlsHandshake && in_[1] == kTlsVersion)
    return refuse({ErrorCode::kPermissionDenied, "it speaks TLS, and here the deployment has no trust"});
  std::size_t at = 0;
  while (true) {
    const std::span<const std::byte> rest = std::span<const std::byte>(in_).subspan(at);
    Result<std::size_t> length = control_message_bytes(rest, bytes_max_);
    if (!length) return {length.error().code(), length.error().message()};
    if (length.value() == 0 || length.value() > rest.size()) break;
    Result<ControlMessage> message = parse_control(rest.first(length.value()));
    if (!message) return {message.error().code(), message.error().message()};
    came.push_back(std::move(message.value()));
    spoken_ = true;
    at += length.value();
  }
  in_.erase(in_.begin(), in_.begin() + static_cast<std::ptrdiff_t>(at));
  return Status::ok();
}

Status ControlConnection::move(std::vector<ControlMessage>& came) {
  if (std::string why; !connected(why)) return why.empty() ? Status::ok() : Status(ErrorCode::kUnavailable, why);
  Status written = write_some();
  bool ended = false;
  // What a peer said before it left is heard.
  Status read = read_some(ended);
  if (read) read = take_messages(came);
  // What there is to say about that: a handshake's next words, or the last ones. It may have left already.
  if (const Status more = write_some(); written && !more) written = Status(more.error().code(), more.error().message());
  if (!read) return read;
  if (ended) return {ErrorCode::kUnavailable, "it has closed the connection"};
  return written;
}

std::unique_ptr<ControlChannel> TcpDialer::dial(const WorkerPlace& place, std::string& why) {
  Descriptor socket = begin_connect(place.host, place.port, why);
  if (!socket) return nullptr;
  return ControlConnection::connecting(std::move(socket),
                                       credentials_ ? credentials_->begin(TlsSide::kFront, place.host) : nullptr);
}

}  // namespace tandem
