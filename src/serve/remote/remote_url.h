// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The one reading of a URL that a client names: what is checked against the list of hosts is what is looked up, sent as
// Host, and compared with the certificate. Narrower than the standard, so that no two readers can differ: a host is a
// name, never a number; no user, no escapes in the host, nothing but printable ASCII.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace tandem {

// A named host and a port: what the operator allows, what a URL asks for.
struct RemoteHost {
  std::string name;  // lower case
  std::uint16_t port = 443;

  bool operator==(const RemoteHost&) const = default;
};

struct RemoteUrl {
  bool tls = true;
  RemoteHost host;
  std::string target;  // path and query, as they go into a request line
};

// http or https, in any case; ports unless said are 80 and 443. What follows '#' is dropped. Throws
// Error{kInvalidArgument} that tells what is wrong.
RemoteUrl parse_remote_url(std::string_view url);
bool is_remote_url(std::string_view url);  // whether it begins with one of the two schemes

// Whether an entry of the operator's list, HOST or HOST:PORT, means this URL's host. One without a port means 80 for
// http and 443 for https.
bool allows(std::string_view entry, const RemoteUrl& url);
// Throws Error{kInvalidArgument} for an entry that can mean no host.
void check_allowed_host(std::string_view entry);

}  // namespace tandem
