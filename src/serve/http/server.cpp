// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "serve/http/server.h"

#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/address.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <mutex>
#include <thread>
#include <vector>

#include "base/format.h"
#include "serve/http/connection.h"
#include "serve/http/socket.h"
#include "serve/http/tls.h"

namespace tandem {

namespace asio = boost::asio;
using asio::ip::tcp;

namespace {

constexpr auto kAcceptPause = std::chrono::milliseconds(100);  // when the system has no descriptors left

asio::ip::address address_of(const std::string& host) {
  if (host == "localhost") return asio::ip::address_v4::loopback();
  boost::system::error_code code;
  asio::ip::address address = asio::ip::make_address(host, code);
  if (code) throw Error(ErrorCode::kInvalidArgument, format("--host is {}, must be an IP address or localhost", host));
  return address;
}

// A peer whose machine is gone ends its connection after about a minute instead of never.
void watch_peer(tcp::socket& socket, std::int64_t write_ms_max) {
  boost::system::error_code ignored;
  socket.set_option(tcp::no_delay(true), ignored);
  socket.set_option(asio::socket_base::keep_alive(true), ignored);
  const int fd = socket.native_handle();
  const auto set = [fd](int option, int value) { ::setsockopt(fd, IPPROTO_TCP, option, &value, sizeof value); };
  set(TCP_KEEPIDLE, 30);
  set(TCP_KEEPINTVL, 10);
  set(TCP_KEEPCNT, 3);
  set(TCP_USER_TIMEOUT, static_cast<int>(write_ms_max));
}

class AsioServer final : public HttpServer {
 public:
  AsioServer(const HttpConfig& config, HttpHandler& handler)
      : config_(config), handler_(handler), acceptor_(io_), pause_(io_) {
    if (!config.tls_certificate.empty()) tls_ = TlsContext::load(config.tls_certificate, config.tls_key);
    listen();
  }
  ~AsioServer() override { stop(); }

  void run() {
    accept();
    for (std::int64_t i = 0; i < config_.threads; ++i) threads_.emplace_back([this] { io_.run(); });
  }

  std::int32_t port() const override { return port_; }

  void stop() override {
    io_.stop();
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
    for (const auto& weak : connections_)
      if (const auto connection = weak.lock()) connection->abandon();
  }

 private:
  void listen() {
    const tcp::endpoint endpoint(address_of(config_.host), static_cast<std::uint16_t>(config_.port));
    try {
      acceptor_.open(endpoint.protocol());
      acceptor_.set_option(asio::socket_base::reuse_address(true));
      acceptor_.bind(endpoint);
      acceptor_.listen();
    } catch (const boost::system::system_error& error) {
      throw Error(ErrorCode::kUnavailable,
                  format("cannot listen on {} port {}: {}", config_.host, config_.port, error.code().message()));
    }
    port_ = acceptor_.local_endpoint().port();
  }

  void accept() {
    auto strand = asio::make_strand(io_.get_executor());
    acceptor_.async_accept(strand, [this, strand](const boost::system::error_code& code, auto socket) {
      if (code == asio::error::operation_aborted) return;
      if (code) {
        pause_.expires_after(kAcceptPause);
        pause_.async_wait([this](const boost::system::error_code& stopped) {
          if (!stopped) accept();
        });
        return;
      }
      welcome(strand, tcp::socket(std::move(socket)));
      accept();
    });
  }

  void welcome(const Connection::Strand& strand, tcp::socket socket) {
    std::lock_guard lock(mutex_);
    std::erase_if(connections_, [](const auto& c) { return c.expired(); });
    if (static_cast<std::int64_t>(connections_.size()) >= config_.limits.connections_max) return refuse(socket);
    watch_peer(socket, config_.limits.write_ms_max);
    std::unique_ptr<Socket> stream = tls_ ? tls_->make_socket(std::move(socket)) : make_plain_socket(std::move(socket));
    const auto connection = std::make_shared<Connection>(strand, std::move(stream), handler_, config_.limits);
    connections_.push_back(connection);
    connection->start();
  }

  // One answer without waiting for a question, as far as the socket takes it at once.
  void refuse(tcp::socket& socket) {
    if (tls_) return;
    const std::unique_ptr<Reply> reply =
        handler_.on_error(503, format("{} connections are open, limit is {} (--connections-max)", connections_.size(),
                                      config_.limits.connections_max));
    const std::string body = reply->next().bytes;
    const std::string text =
        format("HTTP/1.1 503 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{}",
               reason_phrase(503), reply->head().content_type, body.size(), body);
    boost::system::error_code ignored;
    socket.non_blocking(true, ignored);
    socket.write_some(asio::buffer(text), ignored);
    socket.shutdown(tcp::socket::shutdown_both, ignored);
  }

  HttpConfig config_;
  HttpHandler& handler_;
  std::unique_ptr<TlsContext> tls_;
  asio::io_context io_;
  tcp::acceptor acceptor_;
  asio::steady_timer pause_;
  std::int32_t port_ = 0;
  std::vector<std::thread> threads_;
  std::mutex mutex_;  // guards connections_
  std::vector<std::weak_ptr<Connection>> connections_;
};

}  // namespace

std::unique_ptr<HttpServer> HttpServer::start(const HttpConfig& config, HttpHandler& handler) {
  auto server = std::make_unique<AsioServer>(config, handler);
  server->run();
  return server;
}

bool is_loopback(const std::string& host) {
  return address_of(host).is_loopback();
}

}  // namespace tandem
