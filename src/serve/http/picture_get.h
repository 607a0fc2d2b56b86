// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// One GET of a picture at an address that has been checked, over TCP or TLS, within limits.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "serve/remote/ip_address.h"
#include "serve/remote/remote_url.h"

namespace tandem {

// Whom a host's certificate must come from.
class TrustedCertificates {
 public:
  // A PEM file, or the system's authorities. Throws Error naming the file.
  explicit TrustedCertificates(const std::string& file);
  ~TrustedCertificates();
  struct Context;
  Context& context() const { return *context_; }

 private:
  std::unique_ptr<Context> context_;
};

struct PictureGet {
  const RemoteUrl& url;
  const std::vector<IpAddress>& addresses;  // tried in turn
  std::size_t bytes_max;
  std::chrono::steady_clock::time_point connect_end, end;
  const std::atomic<bool>& stopping;  // nobody wants it any more; looked at now and then
};

// Why nothing came, in words for the client. What happens before there is a connection has one name for all reasons, so
// that nobody learns what is behind an address.
struct GetFailure {
  std::string why;
};
inline constexpr std::string_view kOutOfReach = "it cannot be reached";
inline constexpr std::string_view kTooLate = "it takes too long";

// Waits for the body. Throws GetFailure.
std::string get_picture(const PictureGet& get, const TrustedCertificates& trust);

}  // namespace tandem
