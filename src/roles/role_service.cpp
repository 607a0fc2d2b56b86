// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "roles/role_service.h"

#include <algorithm>
#include <utility>

#include "base/format.h"
#include "roles/deployment_engine.h"

namespace tandem {
namespace {

void refuse(ControlChannel& channel, ErrorCode code, const std::string& why) {
  channel.post(Refusal{code, why});
  std::vector<ControlMessage> ignored;
  (void)channel.move(ignored);  // last words; it may have left already
}

}  // namespace

RoleService::RoleService(const Deployment& deployment, std::int32_t rank, LoadedWorker loaded, WorkerWorld& world,
                         ConstraintFactory make_constraint, std::function<void(const std::string&)> say)
    : deployment_(deployment),
      rank_(rank),
      world_(world),
      say_(std::move(say)),
      host_(deployment, rank, std::move(loaded), world, std::move(make_constraint)) {}

void RoleService::say(const std::string& line) const {
  if (say_) say_(line);
}

template <class Failure>
void RoleService::fail(const Failure& error) {
  refuse_front(error);
  throw error;
}

void RoleService::turn() {
  if (const Status failure = host_.failure(); !failure) fail(failure.error());
  if (const Status overdue = host_.overdue(); !overdue)
    fail(StuckWorker(overdue.error().code(), overdue.error().message()));
  tell_addresses();
  join();
  host_.take_constrained();
  tell_news();
  tell_pages();
  tell_report();
  move();
  check_silence();
}

void RoleService::tell_addresses() {
  try {
    if (const std::optional<Addresses> addresses = host_.take_addresses(); addresses && front_)
      front_->post(*addresses);
  } catch (const Error& error) {
    refuse_front(error);
  }
}

void RoleService::join() {
  try {
    if (!joins_ || !host_.try_start()) return;
  } catch (const Error& error) {
    fail(error);
  }
  joins_ = false;
  front_->post(Ready{host_.epoch()});
}

// Of a request that has left nothing more comes: so its news were there when it was taken, and are told before.
void RoleService::tell_news() {
  std::vector<WorkerHost::Left> left = host_.take_left();
  for (RequestEvent& event : host_.take_news())
    if (front_) front_->post(News{host_.epoch(), std::move(event)});
  for (WorkerHost::Left& one : left) left_.push_back(std::move(one));
}

// As the connection takes them, so that news and reports do not wait behind many.
void RoleService::tell_pages() {
  while (front_ && !left_.empty() && front_->unsent() < kUnsentEnough) {
    const WorkerHost::Left& first = left_.front();
    if (page_ < first.pages.size()) {
      tell_piece(first);
      continue;
    }
    front_->post(Yielded{host_.epoch(), first.id});
    left_.pop_front();
    page_ = 0;
  }
}

void RoleService::tell_piece(const WorkerHost::Left& left) {
  const std::span<const std::byte> rest = std::span(left.pages[page_]).subspan(told_);
  const std::span<const std::byte> piece = rest.first(std::min<std::size_t>(rest.size(), kRowsPieceBytes));
  const bool last = piece.size() == rest.size();
  front_->post(Page{host_.epoch(), left.id, page_, last, {piece.begin(), piece.end()}});
  told_ = last ? 0 : told_ + piece.size();
  if (last) ++page_;
}

// The front waits for it.
void RoleService::tell_report() {
  const Nanoseconds now = world_.clock().now();
  if (!front_ || now - reported_ < deployment_.link.heartbeat_ms * kMillisecond) return;
  front_->post(host_.report());
  reported_ = now;
}

// After all that has come was heard: where this process was held up, the front's words have waited.
void RoleService::check_silence() {
  if (!front_) return;
  const Nanoseconds now = world_.clock().now();
  if (now - heard_ > deployment_.link.lost_after_ms * kMillisecond)
    drop(format("nothing was heard of it for {} ms (link.lost_after_ms)", deployment_.link.lost_after_ms));
}

void RoleService::move() {
  if (!front_) return;
  std::vector<ControlMessage> came;
  const Status moved = front_->move(came);
  take_all(came);
  if (front_ && !moved) drop(moved.error().message());
}

void RoleService::take_all(std::span<ControlMessage> came) {
  if (!came.empty()) heard_ = world_.clock().now();
  try {
    for (ControlMessage& message : came) take(message);
  } catch (const Error& error) {
    refuse_front(error);
  }
}

void RoleService::take(ControlMessage& message) {
  if (const auto* prepare = std::get_if<Prepare>(&message)) {
    dissolve();
    host_.prepare(*prepare);
  } else if (const auto* connect = std::get_if<Connect>(&message)) {
    host_.connect(*connect);
    joins_ = true;
  } else if (std::holds_alternative<Dissolve>(message)) {
    dissolve();
  } else if (auto* submit = std::get_if<Submit>(&message); submit && host_.is_attention()) {
    host_.submit(std::move(*submit));
  } else if (auto* rows = std::get_if<Rows>(&message); rows && host_.is_attention()) {
    host_.take(std::move(*rows));
  } else if (auto* page = std::get_if<Page>(&message); page && host_.is_attention()) {
    host_.take(std::move(*page));
  } else if (const auto* yield = std::get_if<Yield>(&message); yield && host_.is_attention()) {
    host_.give_up(yield->id);
  } else if (const auto* cancel = std::get_if<Cancel>(&message)) {
    host_.cancel(cancel->id);
  } else if (!std::holds_alternative<Beat>(message)) {
    throw Error(ErrorCode::kInvalidData, "this is no message from a front to such a worker");
  }
}

Status RoleService::greet(std::unique_ptr<ControlChannel> channel, std::span<ControlMessage> said) {
  try {
    check_greeting(said.front());
    move();  // the one before may have left
    if (front_) throw Error(ErrorCode::kUnavailable, "another front is connected");
  } catch (const Error& error) {
    refuse(*channel, error.code(), error.message());
    return {error.code(), error.message()};
  }
  front_ = std::move(channel);
  front_->allow_long_messages();
  front_->post(host_.welcome());
  reported_ = world_.clock().now();
  take_all(said.subspan(1));
  heard_ = world_.clock().now();
  move();  // of its welcome, as much as goes
  return Status::ok();
}

void RoleService::check_greeting(const ControlMessage& message) const {
  const auto* greeting = std::get_if<Greeting>(&message);
  if (!greeting) throw Error(ErrorCode::kInvalidData, "a front begins with a greeting");
  if (const std::string why = difference(host_.identity(), greeting->identity); !why.empty())
    throw Error(ErrorCode::kInvalidArgument, why);
  if (greeting->rank != rank_)
    throw Error(ErrorCode::kInvalidArgument, format("this is rank {}, the front means {}", rank_, greeting->rank));
}

void RoleService::refuse_front(const Error& error) {
  if (!front_) return;
  refuse(*front_, error.code(), error.message());
  drop("refused: " + error.message());
}

// The front is gone, or has to go; the next one is waited for.
void RoleService::drop(const std::string& why) {
  say(format("front     is gone: {}", why));
  front_.reset();
  dissolve();
}

void RoleService::dissolve() {
  joins_ = false;
  left_.clear();
  page_ = 0;
  told_ = 0;
  host_.dissolve();
}

}  // namespace tandem
