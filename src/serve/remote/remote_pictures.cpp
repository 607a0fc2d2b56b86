// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "serve/remote/remote_pictures.h"

#include <netdb.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <optional>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/format.h"
#include "serve/http/picture_get.h"
#include "serve/remote/look_ups.h"
#include "serve/remote/remote_url.h"

namespace tandem {

namespace {

using Clock = std::chrono::steady_clock;

std::vector<IpAddress> look_up_on_network(const std::string& host) {
  addrinfo hints{}, *found = nullptr;
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  if (::getaddrinfo(host.c_str(), nullptr, &hints, &found) != 0) return {};
  std::vector<IpAddress> addresses;
  for (const addrinfo* one = found; one; one = one->ai_next) {
    IpAddress address{.v6 = one->ai_family == AF_INET6, .bytes = {}};
    if (address.v6)
      std::memcpy(address.bytes.data(), &reinterpret_cast<const sockaddr_in6*>(one->ai_addr)->sin6_addr, 16);
    else
      std::memcpy(address.bytes.data(), &reinterpret_cast<const sockaddr_in*>(one->ai_addr)->sin_addr, 4);
    addresses.push_back(address);
  }
  ::freeaddrinfo(found);
  return addresses;
}

// One of the fetches that may be under way, while it is.
class Place {
 public:
  Place(std::atomic<std::int64_t>& taken, std::int64_t places) : taken_(taken) {
    if (++taken_ <= places) return;
    --taken_;
    throw Error(ErrorCode::kUnavailable,
                format("{} remote pictures are being fetched already (--remote-images-at-once): try again", places));
  }
  ~Place() { --taken_; }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;

 private:
  std::atomic<std::int64_t>& taken_;
};

[[noreturn]] void fail(const RemoteHost& host, std::string_view why) {
  throw Error(ErrorCode::kInvalidArgument, format("the picture cannot be fetched from {}: {}", host.name, why));
}

}  // namespace

RemoteSeams::RemoteSeams() : look_up(look_up_on_network), may_reach(is_public) {}

struct RemotePictures::Parts {
  Parts(const RemoteLimits& l, RemoteSeams s)
      : limits(l), seams(std::move(s)), trust(seams.certificates), look_ups(seams.look_up) {}

  // Where to connect: every address of the name, if we may reach all of them. A name that also means an address within
  // is none that we go to by another.
  std::vector<IpAddress> addresses_of(const RemoteHost& host, Clock::time_point end) {
    const std::optional<std::vector<IpAddress>> found = look_ups.find(host.name, end);
    if (!found || found->empty() || !std::ranges::all_of(*found, seams.may_reach)) fail(host, kOutOfReach);
    return *found;
  }

  RemoteLimits limits;
  RemoteSeams seams;
  TrustedCertificates trust;
  LookUps look_ups;
  std::atomic<std::int64_t> under_way{0};
  std::atomic<bool> stopping{false};
};

RemotePictures::RemotePictures(const RemoteLimits& limits, RemoteSeams seams) {
  for (const std::string& host : limits.hosts) check_allowed_host(host);
  if (!limits.hosts.empty()) parts_ = std::make_unique<Parts>(limits, std::move(seams));
}
RemotePictures::~RemotePictures() = default;

void RemotePictures::stop() {
  if (!parts_) return;
  parts_->stopping = true;
  parts_->look_ups.stop();
}

RemotePictures::Allowance::Allowance(const RemotePictures& pictures)
    : ns_left_(pictures.parts_ ? pictures.parts_->limits.ms_max * 1'000'000 : 0) {}

std::string RemotePictures::fetch(const std::string& text, std::size_t bytes_max, Allowance& allowance) {
  if (!parts_)
    throw Error(ErrorCode::kInvalidArgument,
                "remote pictures are not fetched: send a data URL (data:image/…;base64,…)");
  const RemoteUrl url = parse_remote_url(text);
  if (std::ranges::none_of(parts_->limits.hosts, [&](const std::string& entry) { return allows(entry, url); }))
    throw Error(ErrorCode::kInvalidArgument,
                format("remote pictures are not fetched from {} port {}: send a data URL (data:image/…;base64,…)",
                       url.host.name, url.host.port));
  const Place place(parts_->under_way, parts_->limits.at_once);
  const Clock::time_point begin = Clock::now(), end = begin + std::chrono::nanoseconds(allowance.ns_left_);
  const Clock::time_point connect_end = std::min(end, begin + std::chrono::milliseconds(parts_->limits.connect_ms_max));
  const auto spend = [&] {
    allowance.ns_left_ = std::max<std::int64_t>(0, std::chrono::nanoseconds(end - Clock::now()).count());
  };
  try {
    if (allowance.ns_left_ == 0) throw GetFailure{std::string(kTooLate)};
    const std::vector<IpAddress> addresses = parts_->addresses_of(url.host, connect_end);
    std::string bytes = get_picture({.url = url,
                                     .addresses = addresses,
                                     .bytes_max = bytes_max,
                                     .connect_end = connect_end,
                                     .end = end,
                                     .stopping = parts_->stopping},
                                    parts_->trust);
    spend();
    return bytes;
  } catch (const GetFailure& failure) {
    spend();
    fail(url.host, failure.why == kTooLate ? format("it takes longer than {} ms", parts_->limits.ms_max) : failure.why);
  }
}

}  // namespace tandem
