// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "serve/http/connection.h"

#include <array>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "base/format.h"

namespace tandem {

namespace asio = boost::asio;

namespace {

constexpr std::size_t kReadBytes = 16 << 10;
constexpr std::size_t kWatchedBytesMax = 64 << 10;  // what a client may send ahead while it is being answered
constexpr std::size_t kLingerBytesMax = 4 << 20;
constexpr std::int64_t kLingerMs = 2000;

}  // namespace

Connection::Connection(Strand strand, std::unique_ptr<Socket> socket, HttpHandler& handler, const HttpLimits& limits)
    : strand_(std::move(strand)),
      socket_(std::move(socket)),
      handler_(handler),
      limits_(limits),
      deadline_(strand_),
      signal_(strand_) {
  handler_.on_connection(+1);
}

Connection::~Connection() {
  handler_.on_connection(-1);
}

void Connection::start() {
  asio::co_spawn(strand_, [self = shared_from_this()]() -> Nothing { co_await self->run(); }, asio::detached);
}

// ---- deadlines

// When the time is over, what is under way ends with an error: reading may be answered, writing may not.
void Connection::arm(std::int64_t ms, bool closes) {
  timed_out_ = false;
  deadline_.expires_after(std::chrono::milliseconds(ms));
  deadline_.async_wait([weak = weak_from_this(), closes](const boost::system::error_code& code) {
    const auto self = weak.lock();
    if (code || !self || self->deadline_.expiry() > std::chrono::steady_clock::now()) return;
    self->timed_out_ = true;
    boost::system::error_code ignored;
    if (closes)
      self->socket_->lowest().close(ignored);
    else
      self->socket_->lowest().cancel(ignored);
  });
}

void Connection::disarm() {
  deadline_.expires_at(std::chrono::steady_clock::time_point::max());
}

Wake Connection::make_wake() {
  return [weak = weak_from_this(), strand = strand_] {
    asio::post(strand, [weak] {
      const auto self = weak.lock();
      if (!self) return;
      self->woken_ = true;
      self->signal_.cancel();
    });
  };
}

Connection::Nothing Connection::wait_for_wake() {
  boost::system::error_code ignored;
  signal_.expires_at(std::chrono::steady_clock::time_point::max());
  if (!woken_ && !gone_) co_await signal_.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
  woken_ = false;
}

// ---- reading

Connection::Nothing Connection::run() {
  try {
    arm(limits_.head_ms_max);
    co_await socket_->handshake();
    while (co_await exchange()) {
    }
  } catch (const std::exception&) {  // the socket failed or a deadline passed: there is nobody to tell
  }
  disarm();
  reply_.reset();
  boost::system::error_code ignored;
  socket_->lowest().close(ignored);
}

// Bytes may still be on their way to pending_ by the last exchange's watch; else they are read here.
Connection::Nothing Connection::more_bytes() {
  const std::size_t before = pending_.size();
  while (watching_ && pending_.size() == before && !timed_out_) {
    woken_ = false;
    co_await wait_for_wake();
  }
  if (pending_.size() != before) co_return;
  if (gone_ || watching_) throw boost::system::system_error(asio::error::eof);
  pending_.resize(before + kReadBytes);
  std::size_t bytes = 0;
  try {
    bytes = co_await socket_->read(pending_.data() + before, kReadBytes);
  } catch (...) {
    pending_.resize(before);
    throw;
  }
  pending_.resize(before + bytes);
  if (bytes == 0) throw boost::system::system_error(asio::error::eof);
}

void Connection::feed(RequestReader& reader) {
  pending_.erase(0, reader.feed(pending_));
}

Connection::Nothing Connection::read_head(RequestReader& reader) {
  arm(limits_.idle_ms_max, true);
  if (pending_.empty()) co_await more_bytes();
  begun_ = std::chrono::steady_clock::now();
  arm(limits_.head_ms_max);
  for (feed(reader); reader.state() == RequestReader::State::kHead; feed(reader)) co_await more_bytes();
}

Connection::Nothing Connection::read_body(RequestReader& reader) {
  ExchangeEnd ignored;
  if (reader.expects_continue() && pending_.empty()) co_await send("HTTP/1.1 100 Continue\r\n\r\n", ignored);
  arm(limits_.body_ms_max);
  if (!pending_.empty()) feed(reader);
  while (reader.state() != RequestReader::State::kWhole) {
    co_await more_bytes();
    feed(reader);
  }
}

Connection::Nothing Connection::make_reply(RequestReader& reader) {
  int status = 0;
  std::string message;
  body_left_ = true;
  try {
    co_await read_head(reader);
    reply_ = handler_.on_head(reader.request());
    if (reader.state() == RequestReader::State::kBody && !reply_) co_await read_body(reader);
    body_left_ = reader.state() != RequestReader::State::kWhole;
    disarm();
    woken_ = false;
    if (!reply_) reply_ = handler_.on_request(reader.request(), make_wake());
  } catch (const HttpError& error) {
    status = error.status();
    message = error.message();
  } catch (const boost::system::system_error&) {
    if (!timed_out_ || !socket_->lowest().is_open()) throw;
    status = 408;
    message = reader.state() == RequestReader::State::kHead
                  ? format("request headers took longer than {} ms (--head-ms-max)", limits_.head_ms_max)
                  : format("request body took longer than {} ms (--body-ms-max)", limits_.body_ms_max);
  }
  if (status != 0) reply_ = handler_.on_error(status, message);
}

Connection::Yes Connection::exchange() {
  RequestReader reader({.header_bytes_max = static_cast<std::uint64_t>(limits_.header_bytes_max),
                        .headers_max = static_cast<std::uint64_t>(limits_.headers_max),
                        .body_bytes_max = static_cast<std::uint64_t>(limits_.body_bytes_max)});
  co_await make_reply(reader);
  HttpRequest& request = reader.request();
  keep_ = request.keep_alive && !body_left_;
  ExchangeEnd end;
  bool sent = false;
  try {
    sent = co_await send_reply(request, end);
  } catch (const boost::system::system_error&) {  // the client left, or does not read
  }
  end.whole = sent;
  end.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun_).count();
  handler_.on_end(request, reply_.get(), end);
  reply_.reset();
  if (sent && body_left_) co_await linger();
  co_return sent&& keep_;
}

// ---- answering

std::string Connection::head_of(const HttpRequest& request, const Reply::Part& first) const {
  const HttpHead& head = reply_->head();
  std::string text =
      format("HTTP/1.1 {} {}\r\nContent-Type: {}\r\n", head.status, reason_phrase(head.status), head.content_type);
  for (const auto& [name, value] : head.headers) text += format("{}: {}\r\n", name, value);
  if (first.last)
    text += format("Content-Length: {}\r\n", first.bytes.size());
  else if (request.chunks)
    text += "Transfer-Encoding: chunked\r\n";
  text += keep_ ? "Connection: keep-alive\r\n\r\n" : "Connection: close\r\n\r\n";
  return text;
}

// True when all of the reply went out.
Connection::Yes Connection::send_reply(const HttpRequest& request, ExchangeEnd& end) {
  bool begun = false, chunked = false;
  for (;;) {
    Reply::Part part = reply_->next();
    if (gone_) co_return false;
    if (part.bytes.empty() && !part.last) {
      if (!watching_ && !body_left_ && pending_.size() < kWatchedBytesMax) {
        watching_ = true;
        asio::co_spawn(strand_, [self = shared_from_this()]() -> Nothing { co_await self->watch(); }, asio::detached);
      }
      co_await wait_for_wake();
      if (gone_) co_return false;
      continue;
    }
    std::string bytes;
    if (!begun) {
      begun = true;
      chunked = !part.last && request.chunks;
      if (!part.last && !request.chunks) keep_ = false;  // only the end of the connection ends such a body
      end.status = reply_->head().status;
      bytes = head_of(request, part);
    }
    if (!chunked)
      bytes += part.bytes;
    else if (!part.bytes.empty())
      bytes += format("{:x}\r\n{}\r\n", part.bytes.size(), part.bytes);
    if (chunked && part.last) bytes += "0\r\n\r\n";
    co_await send(bytes, end);
    if (part.last) co_return true;
  }
}

Connection::Nothing Connection::send(std::string_view bytes, ExchangeEnd& end) {
  arm(limits_.write_ms_max, true);
  co_await socket_->write(bytes);
  end.bytes += static_cast<std::int64_t>(bytes.size());
  disarm();
}

// Reads ahead while an answer is under way. What comes is the next request's; the end of the stream is the client's.
Connection::Nothing Connection::watch() {
  std::array<char, kReadBytes> buffer;
  std::size_t bytes = 0;
  try {
    bytes = co_await socket_->read(buffer.data(), buffer.size());
  } catch (const boost::system::system_error&) {
  }
  pending_.append(buffer.data(), bytes);
  gone_ = bytes == 0;
  watching_ = false;
  woken_ = true;
  signal_.cancel();
}

// Closing with unread bytes would make the client's system throw our answer away: it gets a while to stop sending.
Connection::Nothing Connection::linger() {
  boost::system::error_code ignored;
  socket_->lowest().shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
  arm(kLingerMs, true);
  std::array<char, kReadBytes> buffer;
  for (std::size_t left = kLingerBytesMax; left > 0;) {
    const std::size_t bytes = co_await socket_->read(buffer.data(), buffer.size());
    if (bytes == 0) break;
    left -= std::min(left, bytes);
  }
}

}  // namespace tandem
