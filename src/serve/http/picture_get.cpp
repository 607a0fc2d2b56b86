// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "serve/http/picture_get.h"

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/host_name_verification.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/string.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <exception>
#include <optional>

#include "base/error.h"
#include "base/format.h"
#include "serve/http/tls_socket.h"

namespace tandem {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using asio::ip::tcp;

struct TrustedCertificates::Context {
  asio::ssl::context tls{asio::ssl::context::tls_client};
};

TrustedCertificates::TrustedCertificates(const std::string& file) : context_(std::make_unique<Context>()) {
  asio::ssl::context& tls = context_->tls;
  allow_current_versions(tls);
  tls.set_verify_mode(asio::ssl::verify_peer);
  boost::system::error_code code;
  if (file.empty())
    tls.set_default_verify_paths(code);
  else
    tls.load_verify_file(file, code);
  if (code)
    throw Error(ErrorCode::kInvalidData,
                format("cannot read certificates of authorities {}: {}", file, code.message()));
}
TrustedCertificates::~TrustedCertificates() = default;

namespace {

constexpr std::size_t kReadBytes = 64 << 10;
constexpr auto kLook = std::chrono::milliseconds(50);  // between two looks at whether to stop
constexpr std::uint32_t kHeaderBytesMax = 16 << 10;
// What ends chunks is "0\r\n\r\n"; the parser must not look at less of it twice (see request_reader.cpp).
constexpr std::size_t kLastChunkBytes = 5;

// The client's end of a TLS connection to a host of this name.
class TlsClientSocket final : public TlsSocket {
 public:
  TlsClientSocket(tcp::socket socket, asio::ssl::context& context, const std::string& host)
      : TlsSocket(std::move(socket), context, Stream::client, Truncation::kFailure) {
    ::SSL_set_tlsext_host_name(stream_.native_handle(), host.c_str());
    stream_.set_verify_callback(asio::ssl::host_name_verification(host));
  }
};

tcp::endpoint endpoint_of(const IpAddress& address, std::uint16_t port) {
  if (address.v6) return {asio::ip::address_v6(address.bytes), port};
  return {asio::ip::address_v4({address.bytes[0], address.bytes[1], address.bytes[2], address.bytes[3]}), port};
}

std::string request_of(const RemoteUrl& url) {
  const bool usual_port = url.host.port == (url.tls ? 443 : 80);
  return format(
      "GET {} HTTP/1.1\r\nHost: {}{}\r\nUser-Agent: tandem\r\nAccept: image/png, image/jpeg, image/webp\r\n"
      "Accept-Encoding: identity\r\nConnection: close\r\n\r\n",
      url.target, url.host.name, usual_port ? "" : format(":{}", url.host.port));
}

// Feeds what comes to the parser and stops at the first thing that is not allowed.
class AnswerIntake {
 public:
  explicit AnswerIntake(std::size_t bytes_max) : bytes_max_(bytes_max) {
    parser_.header_limit(kHeaderBytesMax);
    parser_.body_limit(bytes_max);
    parser_.eager(true);
  }

  void take(std::string_view bytes) {
    text_.append(bytes);
    std::size_t taken = 1;
    while (!parser_.is_done() && taken > 0 && !text_.empty()) {
      if (looks_again_ && text_.size() < kLastChunkBytes) return;
      boost::system::error_code code;
      taken = parser_.put(asio::buffer(text_), code);
      text_.erase(0, taken);
      if (parser_.is_header_done() && !head_seen_) check_head();
      if (code == http::error::need_more) return;
      judge(code);
      looks_again_ = taken == 0 && head_seen_ && parser_.chunked();
    }
  }
  // The connection has ended.
  void end() {
    boost::system::error_code code;
    if (head_seen_) parser_.put_eof(code);
    if (code || !head_seen_ || !parser_.is_done()) throw GetFailure{"it ends before all has come"};
  }
  bool is_done() const { return parser_.is_done(); }
  std::string body() { return std::move(parser_.get().body()); }

 private:
  void check_head() {
    head_seen_ = true;
    const auto& head = parser_.get();
    if (head.result_int() / 100 == 3) throw GetFailure{"it redirects, which is not followed"};
    if (head.result_int() != 200) throw GetFailure{format("it answers with status {}", head.result_int())};
    if (!boost::beast::iequals(head[http::field::content_type].substr(0, 6), "image/"))
      throw GetFailure{"what it has there is no picture by its content type"};
    if (const auto coding = head[http::field::content_encoding]; !coding.empty() && coding != "identity")
      throw GetFailure{"it answers with an encoding that was not asked for"};
  }
  void judge(const boost::system::error_code& code) const {
    if (code == http::error::body_limit) throw GetFailure{format("it has more than {} bytes", bytes_max_)};
    if (code) throw GetFailure{"what it answers is not HTTP"};
  }

  const std::size_t bytes_max_;
  http::parser<false, http::string_body> parser_;
  std::string text_;  // came, and not used yet
  bool head_seen_ = false;
  bool looks_again_ = false;
};

// The whole exchange as one coroutine.
class Exchange {
 public:
  Exchange(const PictureGet& get, asio::ssl::context& tls) : get_(get), tls_(tls), intake_(get.bytes_max) {}

  asio::awaitable<void> run(asio::io_context& io) {
    std::unique_ptr<Socket> socket = co_await connect(io);
    if (!socket) throw GetFailure{std::string(kOutOfReach)};
    connected_ = true;
    if (!co_await greets(*socket)) throw GetFailure{"TLS fails: its certificate must be of this host and be trusted"};
    co_await talk(*socket);
    body_ = intake_.body();
  }
  bool connected() const { return connected_; }
  std::optional<std::string> body_;

 private:
  asio::awaitable<std::unique_ptr<Socket>> connect(asio::io_context& io) {
    for (const IpAddress& address : get_.addresses) {
      tcp::socket socket(io);
      boost::system::error_code code;
      co_await socket.async_connect(endpoint_of(address, get_.url.host.port),
                                    asio::redirect_error(asio::use_awaitable, code));
      if (code) continue;
      if (!get_.url.tls) co_return make_plain_socket(std::move(socket));
      co_return std::make_unique<TlsClientSocket>(std::move(socket), tls_, get_.url.host.name);
    }
    co_return nullptr;
  }

  static asio::awaitable<bool> greets(Socket& socket) {
    try {
      co_await socket.handshake();
      co_return true;
    } catch (const boost::system::system_error&) {
      co_return false;
    }
  }

  asio::awaitable<void> talk(Socket& socket) {
    std::string bytes(kReadBytes, '\0');
    try {
      co_await socket.write(request_of(get_.url));
      while (!intake_.is_done()) {
        const std::size_t count = co_await socket.read(bytes.data(), bytes.size());
        if (count == 0) break;
        intake_.take({bytes.data(), count});
      }
    } catch (const boost::system::system_error&) {
      throw GetFailure{"it ends before all has come"};
    }
    if (!intake_.is_done()) intake_.end();
  }

  const PictureGet& get_;
  asio::ssl::context& tls_;
  AnswerIntake intake_;
  bool connected_ = false;
};

}  // namespace

std::string get_picture(const PictureGet& get, const TrustedCertificates& trust) {
  Exchange exchange(get, trust.context().tls);
  std::exception_ptr failure;
  asio::io_context io(1);  // ends first, and with it whatever is still under way
  asio::co_spawn(io, exchange.run(io), [&failure](std::exception_ptr thrown) { failure = thrown; });
  const auto now = [] { return std::chrono::steady_clock::now(); };
  const auto go_on = [&](std::chrono::steady_clock::time_point end) {
    return !io.stopped() && !get.stopping && now() < end;
  };
  while (!exchange.connected() && go_on(get.connect_end)) io.run_one_until(std::min(get.connect_end, now() + kLook));
  if (!exchange.connected() && !failure) throw GetFailure{std::string(kOutOfReach)};
  while (go_on(get.end)) io.run_one_until(std::min(get.end, now() + kLook));
  if (failure) std::rethrow_exception(failure);
  if (!exchange.body_) throw GetFailure{std::string(kTooLate)};
  return *std::move(exchange.body_);
}

}  // namespace tandem
