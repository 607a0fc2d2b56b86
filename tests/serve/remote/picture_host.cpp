// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "tests/serve/remote/picture_host.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <stdexcept>

#include "base/format.h"

namespace tandem {

PictureHost::PictureHost(Behaviour behaviour) : behaviour_(std::move(behaviour)) {
  listener_ = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  if (::bind(listener_, reinterpret_cast<sockaddr*>(&address), length) != 0 || ::listen(listener_, 16) != 0)
    throw std::runtime_error("no port to listen on");
  ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &length);
  port_ = ntohs(address.sin_port);
  accepts_ = std::thread([this] {
    while (true) {
      const int connection = ::accept(listener_, nullptr, nullptr);
      if (connection < 0) return;
      std::lock_guard lock(mutex_);
      connections_.emplace_back([this, connection] { serve(connection); });
    }
  });
}

PictureHost::~PictureHost() {
  stopping_ = true;
  ::shutdown(listener_, SHUT_RDWR);
  accepts_.join();
  for (std::thread& connection : connections_) connection.join();
  ::close(listener_);
}

std::vector<std::string> PictureHost::requests() const {
  std::lock_guard lock(mutex_);
  return requests_;
}

void PictureHost::serve(int connection) {
  std::string request;
  char bytes[4096];
  while (!request.ends_with("\r\n\r\n") && !request.starts_with('\x16')) {  // which begins a greeting of TLS
    const ssize_t count = ::recv(connection, bytes, sizeof bytes, 0);
    if (count <= 0) break;
    request.append(bytes, static_cast<std::size_t>(count));
  }
  if (request.ends_with("\r\n\r\n")) {
    {
      std::lock_guard lock(mutex_);
      requests_.push_back(request);
    }
    behaviour_(request, [&](const std::string& part) {
      return !stopping_ && ::send(connection, part.data(), part.size(), MSG_NOSIGNAL) == std::ssize(part);
    });
  }
  ::shutdown(connection, SHUT_RDWR);
  ::close(connection);
}

std::string answer_with(const std::string& body, const std::string& content_type) {
  return format("HTTP/1.1 200 OK\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n{}", content_type, body.size(), body);
}

RemoteSeams loopback_network() {
  RemoteSeams seams;
  seams.look_up = [](const std::string&) { return std::vector<IpAddress>{parse_ip_address("127.0.0.1")}; };
  seams.may_reach = [](const IpAddress&) { return true; };
  return seams;
}

}  // namespace tandem
