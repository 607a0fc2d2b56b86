// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A running front's own control port (front.control_port of the deployment file), for `tandem ctl`: one order for each
// connection, and what comes of it. Whoever asks shows what workers ask of their front. Also the other end of it.
#pragma once

#include <poll.h>

#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "deploy/deployment.h"
#include "roles/control_message.h"
#include "roles/visitors.h"
#include "trust/credentials.h"

namespace tandem {

// One thread, the front's.
class FrontControl {
 public:
  // Listens, where the deployment has such a port; one that is taken, by the front before, is tried again and again.
  // Everything named must outlive this. Throws Error as listen_on for a host without an address.
  FrontControl(const Deployment& deployment, const Credentials* credentials,
               std::function<void(const std::string&)> refused);

  // Appends what to poll for.
  void wait_for(std::vector<pollfd>& waited) const;
  // Takes what came. obey does what an order says and gives back what to tell, or throws Error: why not.
  void move(Nanoseconds now, const std::function<Told(const Order&)>& obey);

 private:
  struct Leaving {  // answered, and not all of it is on its way yet
    ControlConnection connection;
    Nanoseconds since = 0;
  };

  bool listens(Nanoseconds now);
  ControlMessage answer(const ControlMessage& asked, const std::function<Told(const Order&)>& obey);

  const Deployment& deployment_;
  const Nanoseconds patience_;
  Descriptor listener_;
  Nanoseconds next_try_ = 0;
  std::optional<Visitors> visitors_;
  std::deque<Leaving> leaving_;
};

// Gives an order to the running front of a deployment and waits for its answer, as long as patience. host: where it
// runs; empty: as the file says. Throws Error: what the front says, or kUnavailable.
Told order_front(const Deployment& deployment, const std::string& host, const Order& order, Nanoseconds patience);

}  // namespace tandem
