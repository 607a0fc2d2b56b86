// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A host of pictures on a free loopback port that answers as badly as a test wants, over plain TCP.
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "serve/remote/remote_pictures.h"

namespace tandem {

class PictureHost {
 public:
  // One connection after its request has come: what is sent. Sending returns false when the client has gone.
  using Send = std::function<bool(const std::string& bytes)>;
  using Behaviour = std::function<void(const std::string& request, const Send& send)>;

  explicit PictureHost(Behaviour behaviour);
  ~PictureHost();

  int port() const { return port_; }
  std::vector<std::string> requests() const;

 private:
  void serve(int connection);

  const Behaviour behaviour_;
  int listener_ = -1, port_ = 0;
  std::atomic<bool> stopping_ = false;
  mutable std::mutex mutex_;
  std::vector<std::string> requests_;
  std::vector<std::thread> connections_;
  std::thread accepts_;
};

// A whole answer.
std::string answer_with(const std::string& body, const std::string& content_type = "image/png");

// A network where every name is this machine, which may be reached.
RemoteSeams loopback_network();

}  // namespace tandem
