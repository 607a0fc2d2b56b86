// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "traffic/server_address.h"

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "base/format.h"

namespace tandem {

namespace {

[[noreturn]] void bad_url(const std::string& url, const char* problem) {
  throw Error(ErrorCode::kInvalidArgument, format("URL {} {}", url, problem));
}

}  // namespace

ServerAddress parse_server_address(const std::string& url) {
  constexpr std::string_view kScheme = "http://";
  if (url.starts_with("https://")) bad_url(url, "is of HTTPS, which is not supported: measure behind what ends TLS");
  if (!url.starts_with(kScheme)) bad_url(url, "must begin with http://");
  // What goes into a request line as it is must not end it.
  if (std::ranges::any_of(url, [](char c) { return c <= ' ' || c >= 0x7f; }))
    bad_url(url, "has a space or another character that a URL may not have");
  std::string rest = url.substr(kScheme.size());
  ServerAddress address;
  const std::size_t slash = rest.find('/');
  if (slash != std::string::npos) {
    address.base = rest.substr(slash);
    rest.resize(slash);
  }
  while (address.base.ends_with('/')) address.base.pop_back();
  std::size_t colon = rest.rfind(':');
  if (rest.starts_with('[')) {  // an IPv6 address has colons of its own
    const std::size_t end = rest.find(']');
    if (end == std::string::npos) bad_url(url, "has a [ without a ]");
    address.host = rest.substr(1, end - 1);
    colon = end + 1 < rest.size() ? end + 1 : std::string::npos;
    if (colon != std::string::npos && rest[colon] != ':') bad_url(url, "has something between ] and the port");
  } else {
    address.host = rest.substr(0, colon);
  }
  if (address.host.empty()) bad_url(url, "has no host");
  if (colon == std::string::npos) return address;
  const char* end = rest.data() + rest.size();
  const auto [after, failure] = std::from_chars(rest.data() + colon + 1, end, address.port);
  if (failure != std::errc() || after != end || address.port < 1 || address.port > 65535)
    bad_url(url, "has a port that is not 1 to 65535");
  return address;
}

}  // namespace tandem
