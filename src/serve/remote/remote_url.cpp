// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "serve/remote/remote_url.h"

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "base/format.h"

namespace tandem {

namespace {

constexpr std::size_t kUrlBytesMax = 8192;
constexpr std::size_t kHostBytesMax = 253, kLabelBytesMax = 63;  // of DNS
constexpr std::uint16_t kHttpPort = 80, kHttpsPort = 443;

[[noreturn]] void refuse(std::string why) {
  throw Error(ErrorCode::kInvalidArgument, "URL: " + std::move(why));
}

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

bool is_letter(char c) {
  return c >= 'a' && c <= 'z';
}

// A lower-case label of a name: letters, digits and hyphens within.
bool is_label(std::string_view label) {
  const auto inside = [](char c) { return is_letter(c) || (c >= '0' && c <= '9') || c == '-'; };
  return !label.empty() && label.size() <= kLabelBytesMax && label.front() != '-' && label.back() != '-' &&
         std::ranges::all_of(label, inside);
}

// The last label of a name begins with a letter; that of an address, however it is written, with a digit.
bool is_name(std::string_view host) {
  if (host.empty() || host.size() > kHostBytesMax) return false;
  std::string_view rest = host;
  for (std::size_t dot = rest.find('.'); dot != std::string_view::npos; dot = rest.find('.')) {
    if (!is_label(rest.substr(0, dot))) return false;
    rest.remove_prefix(dot + 1);
  }
  return is_label(rest) && is_letter(rest.front());
}

// HOST or HOST:PORT.
RemoteHost read_host(std::string_view text, std::uint16_t port_unless_said) {
  RemoteHost host{.name = {}, .port = port_unless_said};
  const std::size_t colon = text.find(':');
  const std::string_view name = text.substr(0, colon);
  std::ranges::transform(name, std::back_inserter(host.name), lower);
  if (!is_name(host.name)) refuse("its host is no name (addresses, users and escapes are not taken)");
  if (colon == std::string_view::npos) return host;
  const char* end = text.data() + text.size();
  const auto [after, failure] = std::from_chars(text.data() + colon + 1, end, host.port);
  if (failure != std::errc() || after != end || host.port == 0) refuse("its port is not 1 to 65535");
  return host;
}

// Takes a scheme off; false when it is none of ours.
bool take_scheme(std::string_view& url, bool& tls) {
  const auto begins = [&](std::string_view scheme) {
    return std::ranges::equal(url.substr(0, scheme.size()), scheme, {}, lower);
  };
  constexpr std::string_view kHttp = "http://", kHttps = "https://";
  tls = begins(kHttps);
  if (!tls && !begins(kHttp)) return false;
  url.remove_prefix(tls ? kHttps.size() : kHttp.size());
  return true;
}

}  // namespace

bool is_remote_url(std::string_view url) {
  bool tls = false;
  return take_scheme(url, tls);
}

RemoteUrl parse_remote_url(std::string_view url) {
  if (url.size() > kUrlBytesMax) refuse(format("it has {} bytes, limit is {}", url.size(), kUrlBytesMax));
  if (std::ranges::any_of(url, [](char c) { return c <= ' ' || c >= 0x7f || c == '\\'; }))
    refuse("it has a character that must be escaped");
  RemoteUrl read;
  if (!take_scheme(url, read.tls)) refuse("must begin with http:// or https://");
  url = url.substr(0, url.find('#'));
  const std::size_t end = std::min(url.find_first_of("/?"), url.size());
  read.host = read_host(url.substr(0, end), read.tls ? kHttpsPort : kHttpPort);
  read.target = url.substr(end);
  if (!read.target.starts_with('/')) read.target.insert(0, 1, '/');
  return read;
}

bool allows(std::string_view entry, const RemoteUrl& url) {
  return read_host(entry, url.tls ? kHttpsPort : kHttpPort) == url.host;
}

void check_allowed_host(std::string_view entry) {
  try {
    read_host(entry, kHttpsPort);
  } catch (const Error&) {
    throw Error(ErrorCode::kInvalidArgument,
                format("--allow-remote-images has {}, must be HOST or HOST:PORT with the name of a host", entry));
  }
}

}  // namespace tandem
