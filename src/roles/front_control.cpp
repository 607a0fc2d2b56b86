// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "roles/front_control.h"

#include <algorithm>
#include <utility>

#include "base/format.h"
#include "roles/deployment_engine.h"

namespace tandem {
namespace {

constexpr Nanoseconds kListenAgain = 500 * kMillisecond;

// Why the answer of another front, or of no front at all, is none. Throws.
Told told_by(std::vector<ControlMessage>& came, const std::string& where) {
  if (auto* told = std::get_if<Told>(&came.front())) return std::move(*told);
  if (const auto* refusal = std::get_if<Refusal>(&came.front()))
    throw Error(refusal->code, format("{} refuses: {}", where, refusal->why));
  throw Error(ErrorCode::kInvalidData, format("{} does not answer as a front does", where));
}

}  // namespace

FrontControl::FrontControl(const Deployment& deployment, const Credentials* credentials,
                           std::function<void(const std::string&)> refused)
    : deployment_(deployment), patience_(deployment.link.lost_after_ms * kMillisecond) {
  if (deployment.front.control_port == 0) return;
  visitors_.emplace(credentials, patience_, std::move(refused));
  listens(0);
}

bool FrontControl::listens(Nanoseconds now) {
  if (listener_ || now < next_try_) return static_cast<bool>(listener_);
  next_try_ = now + kListenAgain;
  try {
    listener_ = listen_on(deployment_.front.host, deployment_.front.control_port);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kUnavailable) throw;
    if (now == 0) visitors_->tell_refused(error.message(), now);  // once
  }
  return static_cast<bool>(listener_);
}

void FrontControl::wait_for(std::vector<pollfd>& waited) const {
  if (!listener_) return;
  waited.push_back({listener_.get(), POLLIN, 0});
  visitors_->wait_for(waited);
  for (const Leaving& leaving : leaving_) waited.push_back({leaving.connection.fd(), POLLOUT, 0});
}

void FrontControl::move(Nanoseconds now, const std::function<Told(const Order&)>& obey) {
  if (!visitors_ || !listens(now)) return;
  visitors_->accept(listener_, now);
  for (Visitors::Guest& guest : visitors_->move(now)) {
    guest.connection.post(answer(guest.said.front(), obey));
    leaving_.push_back({std::move(guest.connection), now});
    if (leaving_.size() > Visitors::kVisitorsMax) leaving_.pop_front();
  }
  std::erase_if(leaving_, [&](Leaving& leaving) {
    std::vector<ControlMessage> ignored;
    const Status moved = leaving.connection.move(ignored);
    return !moved || !leaving.connection.wants_to_write() || now - leaving.since > patience_;
  });
}

ControlMessage FrontControl::answer(const ControlMessage& asked, const std::function<Told(const Order&)>& obey) {
  try {
    const auto* order = std::get_if<Order>(&asked);
    if (!order) throw Error(ErrorCode::kInvalidData, "this is a front, which takes orders of tandem ctl");
    if (order->version != kControlVersion)
      throw Error(ErrorCode::kInvalidArgument,
                  format("version of the control protocol is {}, the other has {}", kControlVersion, order->version));
    if (order->deployment != deployment_.name)
      throw Error(ErrorCode::kInvalidArgument,
                  format("deployment is {}, the other has {}", deployment_.name, order->deployment));
    return obey(*order);
  } catch (const Error& error) {
    return Refusal{error.code(), error.message()};
  }
}

Told order_front(const Deployment& deployment, const std::string& host, const Order& order, Nanoseconds patience) {
  if (deployment.front.control_port == 0)
    throw Error(
        ErrorCode::kInvalidArgument,
        format("deployment {}: the file gives the front no port for orders ([front] control_port)", deployment.name));
  const std::string to = host.empty() ? deployment.front.host : host;
  const std::string where = format("the front on {}:{}", to, deployment.front.control_port);
  const std::shared_ptr<const Credentials> credentials = credentials_of(deployment);
  std::string why;
  Descriptor socket = begin_connect(to, deployment.front.control_port, why);
  if (!socket) throw Error(ErrorCode::kUnavailable, format("{}: {}", where, why));
  const RealClock clock;
  const Nanoseconds end = clock.now() + patience;
  const auto wait = [&](int fd, int events) {
    pollfd waited{fd, static_cast<short>(events), 0};
    const auto left = std::max<Nanoseconds>(0, end - clock.now()) / kMillisecond;
    if (poll(&waited, 1, static_cast<int>(std::min<Nanoseconds>(left, 3'600'000))) != 1)
      throw Error(ErrorCode::kUnavailable, format("{} does not answer", where));
  };
  wait(socket.get(), POLLOUT);
  if (why = connect_failure(socket); !why.empty())
    throw Error(ErrorCode::kUnavailable, format("{} is not there: {}", where, why));
  ControlConnection connection(std::move(socket), credentials ? credentials->begin(TlsSide::kFront, to) : nullptr);
  connection.allow_long_messages();
  connection.post(order);
  std::vector<ControlMessage> came;
  while (true) {
    const Status moved = connection.move(came);
    if (!came.empty()) return told_by(came, where);
    if (!moved) throw Error(moved.error().code(), format("{}: {}", where, moved.error().message()));
    wait(connection.fd(), POLLIN | (connection.wants_to_write() ? POLLOUT : 0));
  }
}

}  // namespace tandem
