// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "tests/serve/http_client.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>

#include "base/format.h"

namespace tandem {

namespace {

using Clock = std::chrono::steady_clock;

double left(Clock::time_point end) {
  return std::chrono::duration<double>(end - Clock::now()).count();
}
Clock::time_point after(double seconds) {
  return Clock::now() + std::chrono::microseconds(static_cast<std::int64_t>(seconds * 1e6));
}

// Takes chunks from text; false when they do not end in it.
bool take_chunks(std::string_view text, std::string& body) {
  for (;;) {
    const std::size_t line = text.find("\r\n");
    if (line == std::string_view::npos) return false;
    const std::size_t size = std::stoul(std::string(text.substr(0, line)), nullptr, 16);
    if (text.size() < line + 2 + size + 2) return false;
    if (size == 0) return true;
    body += text.substr(line + 2, size);
    text.remove_prefix(line + 2 + size + 2);
  }
}

HttpAnswer parse_head(std::string_view head) {
  HttpAnswer answer;
  answer.status = std::stoi(std::string(head.substr(9, 3)));
  for (std::size_t line; (line = head.find("\r\n")) != std::string_view::npos;) {
    head.remove_prefix(line + 2);
    const std::string_view field = head.substr(0, head.find("\r\n"));
    const std::size_t colon = field.find(':');
    if (colon == std::string_view::npos) continue;
    std::string name(field.substr(0, colon));
    for (char& c : name) c = static_cast<char>(std::tolower(c));
    answer.headers[name] = field.substr(std::min(field.size(), colon + 2));
  }
  return answer;
}

}  // namespace

Json HttpAnswer::error() const {
  const Json body = json();
  return body.is_object() && body.contains("error") ? body["error"] : Json();
}

HttpClient::HttpClient(int port, const std::string& host) : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  inet_pton(AF_INET, host.c_str(), &address.sin_addr);
  if (::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    ADD_FAILURE() << "cannot connect to port " << port;
}

HttpClient::HttpClient(HttpClient&& other) noexcept : fd_(other.fd_), received_(std::move(other.received_)) {
  other.fd_ = -1;
}

HttpClient::~HttpClient() {
  close();
}

void HttpClient::close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

void HttpClient::reset() {
  const linger hard{.l_onoff = 1, .l_linger = 0};
  ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
  close();
}

void HttpClient::half_close() {
  ::shutdown(fd_, SHUT_WR);
}

void HttpClient::shrink_receive_buffer() {
  const int bytes = 1024;
  ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
}

bool HttpClient::send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(sent));
  }
  return true;
}

void HttpClient::post(std::string_view path, std::string_view body, std::string_view headers) {
  send(format("POST {} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n{}Content-Length: {}\r\n\r\n{}",
              path, headers, body.size(), body));
}

bool HttpClient::receive(double seconds) {
  pollfd poller{.fd = fd_, .events = POLLIN, .revents = 0};
  if (seconds <= 0 || ::poll(&poller, 1, static_cast<int>(seconds * 1000) + 1) <= 0) return false;
  char buffer[65536];
  const ssize_t bytes = ::recv(fd_, buffer, sizeof buffer, 0);
  if (bytes <= 0) return false;
  received_.append(buffer, static_cast<std::size_t>(bytes));
  return true;
}

bool HttpClient::wait_for(std::string_view text, double seconds) {
  const auto end = after(seconds);
  while (received_.find(text) == std::string::npos)
    if (!receive(left(end))) return false;
  return true;
}

bool HttpClient::wait_closed(double seconds) {
  const auto end = after(seconds);
  while (receive(left(end))) {
  }
  return left(end) > 0;
}

HttpAnswer HttpClient::answer(double seconds) {
  const auto end = after(seconds);
  std::size_t head = 0;
  while ((head = received_.find("\r\n\r\n")) == std::string::npos)
    if (!receive(left(end))) return {};
  HttpAnswer answer = parse_head(std::string_view(received_).substr(0, head));
  received_.erase(0, head + 4);
  if (answer.status == 100) return this->answer(seconds);
  const auto length = answer.headers.find("content-length");
  for (bool more = true; more; more = receive(left(end))) {
    answer.body.clear();
    if (length != answer.headers.end()) {
      const std::size_t size = std::stoul(length->second);
      answer.body = received_.substr(0, size);
      answer.whole = received_.size() >= size;
      if (!answer.whole) continue;
      received_.erase(0, size);
      return answer;
    }
    answer.whole = answer.headers.contains("transfer-encoding") && take_chunks(received_, answer.body);
    if (!answer.whole) continue;
    received_.clear();
    return answer;
  }
  if (!answer.headers.contains("transfer-encoding") && length == answer.headers.end()) {
    answer.body = received_;
    answer.whole = true;  // it ends where the connection does
  }
  return answer;
}

HttpAnswer get(int port, std::string_view path, std::string_view headers) {
  HttpClient client(port);
  client.send(format("GET {} HTTP/1.1\r\nHost: test\r\n{}\r\n", path, headers));
  return client.answer();
}

HttpAnswer post_text(int port, std::string_view path, std::string_view body, std::string_view headers) {
  HttpClient client(port);
  client.post(path, body, headers);
  return client.answer();
}

HttpAnswer post(int port, std::string_view path, const Json& body, std::string_view headers) {
  return post_text(port, path, body.dump(), headers);
}

std::vector<Json> events_of(std::string_view body) {
  std::vector<Json> events;
  for (std::size_t end; (end = body.find("\n\n")) != std::string_view::npos; body.remove_prefix(end + 2)) {
    const std::string_view event = body.substr(0, end);
    EXPECT_TRUE(event.starts_with("data: ")) << event;
    const std::string_view data = event.substr(std::min<std::size_t>(event.size(), 6));
    events.push_back(data == "[DONE]" ? Json(data) : Json::parse(data, nullptr, false));
  }
  EXPECT_EQ(body, "") << "bytes behind the last event";
  return events;
}

}  // namespace tandem
