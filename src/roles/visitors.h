// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Those who have connected to a control port and have not said a word that counts: anybody, as far as is known. Each
// has a while to shake hands and to say its first message, in few bytes, and there are so many at a time, the newest.
// So one that says nothing, or too much, or the wrong thing is cut off, and nobody waits for it. One thread.
#pragma once

#include <poll.h>

#include <deque>
#include <functional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "roles/control_connection.h"
#include "trust/credentials.h"

namespace tandem {

class Visitors {
 public:
  static constexpr std::size_t kVisitorsMax = 64;

  // credentials: that visitors have to fit; none where nobody is asked. They outlive this. refused: is told of each
  // that is cut off, at most kLinesMax at once and then one a second, so that nobody fills a log.
  Visitors(const Credentials* credentials, Nanoseconds patience, std::function<void(const std::string&)> refused)
      : credentials_(credentials), patience_(patience), refused_(std::move(refused)) {}

  struct Guest {  // somebody who is known, where there are credentials, and has spoken
    ControlConnection connection;
    std::vector<ControlMessage> said;  // one at least
  };

  void accept(const Descriptor& listener, Nanoseconds now);
  // Appends what to poll for.
  void wait_for(std::vector<pollfd>& waited) const;
  // Moves all on, and hands over those who have spoken.
  std::vector<Guest> move(Nanoseconds now);
  std::size_t count() const { return all_.size(); }
  // Also of guests whose words were wrong.
  void tell_refused(const std::string& why, Nanoseconds now);

 private:
  static constexpr double kLinesMax = 20;

  struct Visitor {
    ControlConnection connection;
    Nanoseconds since = 0;
  };

  const Credentials* const credentials_;
  const Nanoseconds patience_;
  const std::function<void(const std::string&)> refused_;
  std::deque<Visitor> all_;  // oldest first
  double lines_ = kLinesMax;
  Nanoseconds told_ = 0;
  std::int64_t untold_ = 0;
};

}  // namespace tandem
