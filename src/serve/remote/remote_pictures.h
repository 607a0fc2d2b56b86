// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Fetches pictures from hosts that the operator has named, for clients that have not earned any trust: what they can
// make the server do is one GET of one of these hosts, at an address of the public network.
//
//   URL → host in the list → its addresses, looked up once → all of them public → a connection to one of these, and to
//   nothing that a second look-up or a redirect might say → 200, an image type, no more than so many bytes, in time
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "serve/remote/ip_address.h"

namespace tandem {

struct RemoteLimits {
  std::vector<std::string> hosts;  // HOST or HOST:PORT; none: nothing is fetched
  std::int64_t at_once = 4;        // fetches under way
  std::int64_t ms_max = 10'000;    // of all pictures of one request
  std::int64_t connect_ms_max = 3'000;
};

// What stands between us and the network; tests put a network of their own there.
struct RemoteSeams {
  std::function<std::vector<IpAddress>(const std::string& host)> look_up;  // may wait; empty: there is no such host
  std::function<bool(const IpAddress&)> may_reach;
  std::string certificates;  // PEM file of authorities; empty: those of the system

  RemoteSeams();  // the network
};

class RemotePictures {
 public:
  // Throws Error for hosts that can be none, and for certificates that cannot be read.
  explicit RemotePictures(const RemoteLimits& limits, RemoteSeams seams = RemoteSeams());
  ~RemotePictures();
  RemotePictures(const RemotePictures&) = delete;
  RemotePictures& operator=(const RemotePictures&) = delete;

  // What one request has left of its time.
  class Allowance {
   public:
    explicit Allowance(const RemotePictures& pictures);

   private:
    friend class RemotePictures;
    std::int64_t ns_left_;
  };

  // The bytes of a picture. Waits; from any thread. Throws Error with a reason that names no address: kUnavailable when
  // as many fetches as may be are under way, kInvalidArgument for everything else.
  std::string fetch(const std::string& url, std::size_t bytes_max, Allowance& allowance);

  // Ends all fetches, and those to come. From any thread.
  void stop();

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace tandem
