// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "serve/http/request_reader.h"

#include <boost/beast/core/string.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>

#include "base/format.h"

namespace tandem {

namespace http = boost::beast::http;

struct RequestReader::Parser {
  http::request_parser<http::string_body> beast;
};

namespace {

std::string small_letters(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

HttpError error_of(const boost::system::error_code& code, const RequestReader::Limits& limits) {
  if (code == http::error::header_limit)
    return {431, format("request headers are longer than {} bytes (--header-bytes-max)", limits.header_bytes_max)};
  if (code == http::error::body_limit)
    return {413, format("request body is longer than {} bytes (--body-bytes-max)", limits.body_bytes_max)};
  return {400, format("not a valid HTTP request: {}", code.message())};
}

}  // namespace

RequestReader::RequestReader(const Limits& limits) : limits_(limits), parser_(std::make_unique<Parser>()) {
  parser_->beast.header_limit(static_cast<std::uint32_t>(limits.header_bytes_max));
  parser_->beast.body_limit(limits.body_bytes_max);
}

RequestReader::~RequestReader() = default;

bool RequestReader::expects_continue() const {
  return state_ != State::kHead && boost::beast::iequals(parser_->beast.get()[http::field::expect], "100-continue");
}

// A request in chunks ends with "0\r\n\r\n", so many bytes. The parser takes them for granted when it looks again at an
// end that it found unfinished.
constexpr std::size_t kLastChunkBytes = 5;

std::size_t RequestReader::feed(std::string_view bytes) {
  auto& parser = parser_->beast;
  std::size_t used = 0;
  while (used < bytes.size() && state_ != State::kWhole) {
    if (looks_again_ && bytes.size() - used < kLastChunkBytes) break;
    boost::system::error_code code;
    const std::size_t taken = parser.put(boost::asio::buffer(bytes.substr(used)), code);
    used += taken;
    looks_again_ = taken == 0 && state_ == State::kBody && parser.chunked();
    if (code == http::error::need_more) break;
    if (code) throw error_of(code, limits_);
    if (state_ == State::kHead && parser.is_header_done()) {
      take_head();
      state_ = parser.is_done() ? State::kWhole : State::kBody;
      break;
    }
    if (parser.is_done()) state_ = State::kWhole;
    if (taken == 0) break;
  }
  if (state_ == State::kWhole) request_.body = std::move(parser.get().body());
  return used;
}

void RequestReader::take_head() {
  const auto& message = parser_->beast.get();
  std::uint64_t count = 0;
  for (const auto& field : message) {
    if (++count > limits_.headers_max)
      throw HttpError(431, format("request has more than {} headers (--headers-max)", limits_.headers_max));
    request_.headers.emplace_back(small_letters({field.name_string().data(), field.name_string().size()}),
                                  std::string(field.value().data(), field.value().size()));
  }
  request_.method = std::string(message.method_string().data(), message.method_string().size());
  const std::string_view target(message.target().data(), message.target().size());
  request_.path = std::string(target.substr(0, target.find('?')));
  request_.keep_alive = message.keep_alive();
  request_.chunks = message.version() >= 11;
}

}  // namespace tandem
