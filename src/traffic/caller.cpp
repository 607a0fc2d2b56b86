// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "traffic/caller.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/errno_text.h"
#include "base/error.h"
#include "base/format.h"

namespace tandem {

namespace {

constexpr std::size_t kReadBytes = 64 << 10;

[[noreturn]] void lost(const char* what, int error) {
  throw Error(ErrorCode::kUnavailable, format("{}: {}", what, errno_text(error)));
}

}  // namespace

Endpoints look_up(const ServerAddress& address) {
  addrinfo hints{}, *list = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  const int failure = ::getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(), &hints, &list);
  if (failure != 0)
    throw Error(ErrorCode::kNotFound, format("host {} has no address: {}", address.host, ::gai_strerror(failure)));
  Endpoints endpoints{.address = address, .found = {}};
  for (const addrinfo* at = list; at; at = at->ai_next) {
    auto& [storage, size] = endpoints.found.emplace_back();
    std::memcpy(&storage, at->ai_addr, at->ai_addrlen);
    size = at->ai_addrlen;
  }
  ::freeaddrinfo(list);
  return endpoints;
}

// The first address counts: a load generator that tries others in between measures two things at once.
Caller::Caller(const Endpoints& to, std::string request) : request_(std::move(request)) {
  const auto& [storage, size] = to.found.front();
  fd_ = ::socket(storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd_ < 0) lost("no socket", errno);
  const int yes = 1;
  ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  if (::connect(fd_, reinterpret_cast<const sockaddr*>(&storage), size) == 0 || errno == EINPROGRESS) return;
  const int error = errno;
  ::close(fd_);
  lost("cannot connect", error);
}

Caller::~Caller() {
  ::close(fd_);
}

short Caller::events() const {
  return static_cast<short>(sent_ < request_.size() ? POLLIN | POLLOUT : POLLIN);
}

bool Caller::send_rest() {
  if (connecting_) {
    int error = 0;
    socklen_t size = sizeof error;
    ::getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) lost("cannot connect", error);
  }
  while (sent_ < request_.size()) {
    const ssize_t bytes = ::send(fd_, request_.data() + sent_, request_.size() - sent_, MSG_NOSIGNAL);
    if (bytes < 0 && errno == EINTR) continue;
    if (bytes < 0 && (errno == EAGAIN || errno == ENOTCONN)) return false;
    if (bytes < 0) return false;  // an answer may have come all the same: reading tells
    connecting_ = false;
    sent_ += static_cast<std::size_t>(bytes);
  }
  return true;
}

bool Caller::advance() {
  if (sent_ < request_.size()) send_rest();
  char buffer[kReadBytes];
  while (!reader_.whole()) {
    const ssize_t bytes = ::recv(fd_, buffer, sizeof buffer, 0);
    if (bytes < 0 && errno == EINTR) continue;
    if (bytes < 0 && (errno == EAGAIN || errno == ENOTCONN)) return false;
    if (bytes < 0) lost("connection lost", errno);
    if (bytes == 0) {
      reader_.end();
      return true;
    }
    reader_.feed({buffer, static_cast<std::size_t>(bytes)});
  }
  return true;
}

std::string request_text(const ServerAddress& address, const std::string& path, const std::string& key,
                         const std::string& body) {
  std::string text = format("{} {}{} HTTP/1.1\r\nHost: {}:{}\r\nConnection: close\r\n", body.empty() ? "GET" : "POST",
                            address.base, path, address.host, address.port);
  if (!key.empty()) text += format("Authorization: Bearer {}\r\n", key);
  if (!body.empty()) text += format("Content-Type: application/json\r\nContent-Length: {}\r\n", body.size());
  return text + "\r\n" + body;
}

std::string call_and_wait(const Endpoints& to, const std::string& request, int timeout_ms) {
  Caller caller(to, request);
  pollfd poller{.fd = caller.descriptor(), .events = caller.events(), .revents = 0};
  do {
    poller.events = caller.events();
    if (::poll(&poller, 1, timeout_ms) == 0)
      throw Error(ErrorCode::kUnavailable, format("no answer within {} ms", timeout_ms));
  } while (!caller.advance());
  if (caller.reader().status() != 200)
    throw Error(ErrorCode::kUnavailable,
                format("status {}: {}", caller.reader().status(), caller.reader().body().substr(0, 400)));
  return caller.reader().body();
}

}  // namespace tandem
