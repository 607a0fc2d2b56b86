// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "roles/membership.h"

#include <poll.h>

#include <algorithm>
#include <utility>

#include "base/format.h"
#include "roles/deployment_engine.h"

namespace tandem {
namespace {

constexpr Nanoseconds kFormingMax = 60 * kSecond;  // caches are made meanwhile
constexpr Nanoseconds kSlowWindowMin = kSecond;
constexpr std::size_t kMovesMax = 2;  // requests on their way at a time: the others go on where they are

}  // namespace

Membership::Membership(const Deployment& deployment, const Identity& identity, MembershipWorld world)
    : deployment_(deployment),
      identity_(identity),
      world_(std::move(world)),
      attention_workers_(deployment.attention.size()),
      lost_at_(world_.clock.now()),
      watch_(static_cast<std::int32_t>(attention_workers_),
             static_cast<std::int32_t>(deployment.attention.size() + deployment.ffn.size()),
             deployment.link.slow_factor, std::max(kSlowWindowMin, 4 * deployment.link.heartbeat_ms * kMillisecond)) {
  for (const auto* list : {&deployment.attention, &deployment.ffn})
    for (const WorkerPlace& place : *list)
      peers_.push_back(std::make_unique<FrontPeer>(place, worker_name(deployment, place.rank)));
}

// ---- any thread

void Membership::submit(Request request, std::int32_t rank, std::shared_ptr<EventStream> events) {
  const RequestId id = request.id;
  const auto refuse = [&](ErrorCode code, std::string why) {
    events->push({.id = id, .tokens = {}, .finish = FinishReason::kError, .status = Status(code, std::move(why))});
  };
  if (const Status status = check_sendable(request); !status)
    return refuse(status.error().code(), status.error().message());
  std::lock_guard lock(mutex_);
  if (closed_) return events->push({.id = id, .tokens = {}, .finish = FinishReason::kCancelled});
  if (given_up_) return refuse(ErrorCode::kUnavailable, standing_.missing);
  pending_.add(std::move(request), rank, std::move(events));
}

void Membership::cancel(RequestId id) {
  std::lock_guard lock(mutex_);
  cancels_.push_back(id);
}

Membership::Standing Membership::standing() const {
  std::lock_guard lock(mutex_);
  return standing_;
}

void Membership::close() {
  std::lock_guard lock(mutex_);
  closed_ = true;
}

void Membership::end_all() {
  pending_.end_all(FinishReason::kCancelled, Status::ok());
}

// ---- one thread

void Membership::say(const std::string& line) const {
  if (world_.say) world_.say(line);
}

void Membership::turn(const std::function<bool(const ControlChannel&)>& has_moved) {
  for (const auto& peer : peers_)
    peer->dial(world_.dialer, {.identity = identity_, .rank = peer->place().rank}, world_.clock.now());
  for (const auto& peer : peers_)
    if (const ControlChannel* channel = peer->channel();
        channel && (!has_moved || has_moved(*channel) || (channel->events() & POLLOUT) != 0))
      move(*peer);
  take_cancels();
  check_times();
  if (phase_ == Phase::kApart && can_form()) form();
  if (phase_ != Phase::kFormed) return;
  send_requests();
  move_requests();
}

void Membership::move(FrontPeer& peer) {
  std::vector<ControlMessage> came;
  const Status status = peer.move(world_.clock.now(), came);
  for (ControlMessage& message : came) {
    if (peer.state() == FrontPeer::State::kAway) return;
    take(peer, message);
  }
  if (status || peer.state() == FrontPeer::State::kAway) return;
  // Nothing of that changes by itself.
  if (status.error().code() == ErrorCode::kPermissionDenied)
    fail_start(Error(ErrorCode::kPermissionDenied, format("{}: {}", peer.title(), status.error().message())));
  lose(peer, status.error().message());
}

void Membership::take(FrontPeer& peer, ControlMessage& message) {
  if (const auto* refusal = std::get_if<Refusal>(&message)) return refused(peer, *refusal);
  if (const auto* welcome = std::get_if<Welcome>(&message)) return welcomed(peer, *welcome);
  if (!peer.present()) return lose(peer, "it did not begin with a welcome");
  if (auto* addresses = std::get_if<Addresses>(&message)) {
    if (peer.slow) return no_longer_slow(peer);
    // Those of an epoch that was dissolved are for nobody.
    const bool expected = phase_ == Phase::kForming && peer.takes_part && !peer.addresses;
    const bool whole = addresses->epoch == epoch_ && std::ssize(addresses->introductions) == deployment_.seats();
    if (!expected || !whole) return;
    peer.addresses = std::move(*addresses);
    introduce();
  } else if (const auto* ready = std::get_if<Ready>(&message)) {
    peer.ready = phase_ == Phase::kForming && ready->epoch == epoch_;
    finish_forming();
  } else if (auto* news = std::get_if<News>(&message)) {
    if (phase_ != Phase::kFormed || news->epoch != epoch_) return;  // the past has no say
    if (!pending_.pass_on(std::move(news->event)) && !suspicious_since_) suspicious_since_ = world_.clock.now();
  } else if (auto* page = std::get_if<Page>(&message)) {
    pass_on(peer, *page);
  } else if (const auto* yielded = std::get_if<Yielded>(&message)) {
    if (yielded->epoch == epoch_) moved(peer, yielded->id);
  } else if (const auto* report = std::get_if<Report>(&message)) {
    peer.report(*report);
    if (phase_ == Phase::kFormed && peer.takes_part) watch_.take(peer.place().rank, *report);
  } else {
    lose(peer, "what it says is no message from a worker");
  }
}

void Membership::refused(FrontPeer& peer, const Refusal& refusal) {
  const std::string why = format("{} refuses: {}", peer.title(), refusal.why);
  // What the next moment may change is tried again.
  if (refusal.code != ErrorCode::kUnavailable) fail_start(Error(refusal.code, why));
  lose(peer, refusal.why);
}

void Membership::welcomed(FrontPeer& peer, const Welcome& welcome) {
  std::string why = difference(identity_, welcome.identity);
  if (why.empty() && welcome.rank != peer.place().rank) why = format("it is rank {}", welcome.rank);
  if (!why.empty()) {
    fail_start(Error(ErrorCode::kInvalidArgument, format("{} is of another deployment: {}", peer.title(), why)));
    return lose(peer, why);
  }
  peer.welcome(welcome);
  say(format("joined    {}, process {}", peer.title(), welcome.process));
  newcomer(peer);
}

// One that was missed: all meet again, with it.
void Membership::newcomer(const FrontPeer& peer) {
  if (phase_ != Phase::kApart && peer.usable() && !is_held(peer.place().seat())) dissolve();
}

// Before the deployment has run once, what is wrong with a worker is the answer.
void Membership::fail_start(Error error) {
  std::lock_guard lock(mutex_);
  if (!standing_.formed_once && !standing_.failure) standing_.failure = std::move(error);
}

void Membership::lose(FrontPeer& peer, const std::string& why) {
  const bool was_present = peer.present(), took_part = peer.takes_part;
  peer.lose(world_.clock.now(), why);
  if (was_present) say(format("lost      {}: {}", peer.title(), why));
  if (took_part && phase_ != Phase::kApart) dissolve();
}

void Membership::dissolve() {
  // Tries to meet that fail are part of one wait.
  if (phase_ == Phase::kFormed) lost_at_ = world_.clock.now();
  phase_ = Phase::kApart;
  suspicious_since_.reset();
  moves_.clear();
  for (const auto& peer : peers_) {
    peer->takes_part = peer->ready = false;
    peer->addresses.reset();
    peer->outbox.clear();
    if (peer->present()) peer->post(Dissolve{});
  }
  pending_.unsend_all();
}

std::vector<FrontPeer*> Membership::seated() const {
  std::vector<FrontPeer*> seated(static_cast<std::size_t>(deployment_.seats()));
  for (const bool aside : {false, true})  // those that were slow only where there is nobody else
    for (const auto& peer : peers_) {
      FrontPeer*& holder = seated[static_cast<std::size_t>(peer->place().seat())];
      if (!holder && peer->usable() && peer->aside == aside) holder = peer.get();
    }
  return seated;
}

bool Membership::is_held(std::int32_t seat) const {
  return std::ranges::any_of(peers_,
                             [&](const auto& peer) { return peer->takes_part && peer->place().seat() == seat; });
}

bool Membership::can_form() const {
  const std::vector<FrontPeer*> holders = seated();
  const auto here = [](const FrontPeer* holder) { return holder != nullptr; };
  const auto ffn = holders.begin() + static_cast<std::ptrdiff_t>(attention_workers_);
  if (!std::all_of(ffn, holders.end(), here) || std::none_of(holders.begin(), ffn, here)) return false;
  if (standing_.formed_once) return true;
  for (std::size_t a = 0; a < attention_workers_; ++a)
    if (!holders[a] && !peers_[a]->drained()) return false;
  // Replicas are for losses: whose place it is gets a while to begin.
  if (world_.clock.now() - lost_at_ > deployment_.link.lost_after_ms * kMillisecond) return true;
  return std::ranges::none_of(holders, [&](const FrontPeer* holder) {
    return holder && holder->place().replica_of >= 0 &&
           !peers_[static_cast<std::size_t>(holder->place().seat())]->drained();
  });
}

void Membership::form() {
  phase_ = Phase::kForming;
  forming_since_ = world_.clock.now();
  Prepare prepare{.epoch = ++epoch_, .session = world_.random_number(), .present = {}};
  for (FrontPeer* holder : seated()) {
    if (holder) holder->takes_part = true;
    prepare.present.push_back(holder ? 1 : 0);
  }
  for (const auto& peer : peers_)
    if (peer->takes_part) peer->post(prepare);
}

// Whose endpoint takes long is not waited for where the others can do without. It still answers, so it is not lost; one
// that never gets its endpoint ends itself.
void Membership::leave_slow_behind() {
  std::vector<FrontPeer*> slow;
  for (const auto& peer : peers_)
    if (peer->takes_part && !peer->addresses) slow.push_back(peer.get());
  for (FrontPeer* peer : slow) peer->slow = true;
  const bool go_on = can_form();
  for (FrontPeer* peer : slow) {
    peer->slow = go_on;
    if (go_on) say(format("slow      {}: it has no endpoint yet", peer->title()));
  }
  if (go_on && !slow.empty()) dissolve();
}

void Membership::no_longer_slow(FrontPeer& peer) {
  peer.slow = false;
  say(format("joined    {}: it has an endpoint now", peer.title()));
  newcomer(peer);
}

// When all have told their addresses, each gets those of the others.
void Membership::introduce() {
  for (const auto& peer : peers_)
    if (peer->takes_part && !peer->addresses) return;
  for (const auto& to : peers_) {
    if (!to->takes_part) continue;
    const auto seat = static_cast<std::size_t>(to->place().seat());
    Connect connect{.epoch = epoch_,
                    .introductions = std::vector<Introduction>(static_cast<std::size_t>(deployment_.seats()))};
    for (const auto& from : peers_)
      if (from->addresses)
        connect.introductions[static_cast<std::size_t>(from->place().seat())] = from->addresses->introductions[seat];
    to->post(connect);
  }
}

void Membership::finish_forming() {
  if (phase_ != Phase::kForming) return;
  for (const auto& peer : peers_)
    if (peer->takes_part && !peer->ready) return;
  phase_ = Phase::kFormed;
  ++formations_;
  std::vector<bool> takes_part;
  for (const auto& peer : peers_) takes_part.push_back(peer->takes_part);
  watch_.begin(takes_part, world_.clock.now());
  std::lock_guard lock(mutex_);
  standing_.formed_once = true;
  given_up_ = false;
  say(format("running   epoch {}", epoch_.load()));
}

void Membership::move_requests() {
  for (std::size_t a = 0; a < attention_workers_; ++a) {
    FrontPeer& peer = *peers_[a];
    if (!drains(peer)) continue;
    begin_moves(peer);
    // The rest goes on without it as soon as what it gave has been sent: who has got it keeps it when all meet again.
    const auto sent = [](const auto& other) { return other->outbox.empty(); };
    if (pending_.count_of(peer.place().rank) == 0 && std::ranges::all_of(peers_, sent)) return dissolve();
  }
}

void Membership::pass_on(FrontPeer& from, Page& page) {
  const auto move = find_move(from, page.id);
  if (move == moves_.end() || page.epoch != epoch_) return;
  try {
    move->order.take(page);
  } catch (const Error& error) {
    return lose(from, error.message());
  }
  moved_pages_ += page.last;
  peers_[static_cast<std::size_t>(move->to)]->outbox.add(std::move(page));
}

// Those whose KV has been sent on are over.
void Membership::begin_moves(FrontPeer& from) {
  std::erase_if(moves_, [&](const Move& move) {
    return move.left && !peers_[static_cast<std::size_t>(move.to)]->outbox.has_pages();
  });
  while (moves_.size() < kMovesMax) {
    const std::int32_t to = pending_.least_busy(who_takes_requests());
    if (to == PendingRequests::kNobody) return;
    const std::optional<RequestId> id = pending_.begin_move(from.place().rank);
    if (!id) return;
    moves_.push_back({.id = *id, .from = from.place().rank, .to = to});
    if (from.outbox.withdraw(*id))
      moved(from, *id);
    else
      from.outbox.add(Yield{*id});
  }
}

// Attention workers, by rank.
std::vector<bool> Membership::who_takes_requests() const {
  std::vector<bool> takes;
  takes.reserve(attention_workers_);
  for (std::size_t a = 0; a < attention_workers_; ++a) takes.push_back(peers_[a]->takes_part && !peers_[a]->drained());
  return takes;
}

std::vector<Membership::Move>::iterator Membership::find_move(const FrontPeer& from, RequestId id) {
  return std::ranges::find_if(
      moves_, [&](const Move& move) { return move.id == id && move.from == from.place().rank && !move.left; });
}

// The request is with nobody now; what came of its KV waits for it where it is sent next.
void Membership::moved(const FrontPeer& from, RequestId id) {
  const auto move = find_move(from, id);
  if (move == moves_.end()) return;
  move->left = true;
  if (pending_.end_move(id, move->to)) {
    ++moved_requests_;
    return;
  }
  Outbox& outbox = peers_[static_cast<std::size_t>(move->to)]->outbox;  // it has ended, and its KV is for nobody
  outbox.withdraw(id);
  outbox.add(Cancel{id});
}

void Membership::send_requests() {
  for (PendingRequests::Sending& sending : pending_.take_unsent(who_takes_requests()))
    peers_[static_cast<std::size_t>(sending.rank)]->outbox.add(std::move(sending.request));
  for (const auto& peer : peers_) peer->send();
}

void Membership::take_cancels() {
  std::vector<RequestId> cancels;
  {
    std::lock_guard lock(mutex_);
    cancels.swap(cancels_);
  }
  for (const RequestId id : cancels) {
    const std::int32_t rank = pending_.cancel(id);
    if (rank == PendingRequests::kNobody) continue;
    Outbox& outbox = peers_[static_cast<std::size_t>(rank)]->outbox;
    if (outbox.withdraw(id))
      pending_.end(id, FinishReason::kCancelled, Status::ok());
    else
      outbox.add(Cancel{id});
  }
}

void Membership::check_times() {
  const Nanoseconds now = world_.clock.now(), silence = deployment_.link.lost_after_ms * kMillisecond;
  for (const auto& peer : peers_) {
    peer->beat(now, deployment_.link.heartbeat_ms * kMillisecond);
    if (peer->state() != FrontPeer::State::kAway && now - peer->heard() > silence)
      lose(*peer, format("nothing was heard of it for {} ms (link.lost_after_ms)", deployment_.link.lost_after_ms));
  }
  if (phase_ == Phase::kForming && now - forming_since_ > silence) leave_slow_behind();
  for (const auto& peer : peers_)
    if (phase_ == Phase::kForming && now - forming_since_ > kFormingMax && peer->takes_part && !peer->ready)
      lose(*peer, "it has not met the others in time");
  if (phase_ == Phase::kFormed) look_for_stragglers(now);
  // A hand-over has failed and nobody is gone: meet again.
  if (phase_ == Phase::kFormed && suspicious_since_ && now - *suspicious_since_ > silence) dissolve();
  if (phase_ != Phase::kFormed) tell_missing(now);
}

void Membership::look_for_stragglers(Nanoseconds now) {
  const std::optional<Straggler> before = watch_.slow();
  if (!watch_.look(now) || !watch_.slow()) return;
  const std::int32_t rank = watch_.slow()->rank;
  if (!before || before->rank != rank) say(format("slow      {}", who_is_slow()));
  if (rank >= 0 && deployment_.link.replace_slow) set_aside(*peers_[static_cast<std::size_t>(rank)]);
}

std::string Membership::who_is_slow() const {
  if (phase_ != Phase::kFormed || !watch_.slow()) return {};
  const Straggler& slow = *watch_.slow();
  return slow.rank < 0 ? slow.why : format("{} {}", peers_[static_cast<std::size_t>(slow.rank)]->title(), slow.why);
}

// Where a replica stands by. What an attention worker computes depends on its contexts, so it is not replaced for that.
void Membership::set_aside(FrontPeer& peer) {
  const auto stands_by = [&](const auto& other) {
    return other->usable() && !other->aside && !other->takes_part && other->place().seat() == peer.place().seat();
  };
  if (std::ranges::none_of(peers_, stands_by)) return;
  peer.aside = true;
  say(format("aside     {}, being slow (link.replace_slow)", peer.title()));
  dissolve();
}

void Membership::set_drained(FrontPeer& peer, bool drained) {
  if (peer.drained() == drained) return;
  peer.set_drained(drained);
  say(format("{}   {}, as ordered", drained ? "drained" : "added  ", peer.title()));
  const bool gives_requests_up =
      phase_ == Phase::kFormed && peer.place().rank < static_cast<std::int32_t>(attention_workers_);
  if (!drained)
    newcomer(peer);
  else if (peer.takes_part && !gives_requests_up)
    dissolve();
}

// What an operator wants of it. A change of who takes part begins at once; status tells when it is done.
Told Membership::obey(const Order& order) {
  if (order.kind == OrderKind::kStatus) return {to_line(status())};
  if (order.rank < 0 || order.rank >= std::ssize(peers_))
    throw Error(ErrorCode::kInvalidArgument, format("rank is {}, there are {} workers", order.rank, peers_.size()));
  FrontPeer& peer = *peers_[static_cast<std::size_t>(order.rank)];
  const bool drain = order.kind == OrderKind::kDrain;
  if (drain) check_drain(peer);
  if (!drain) peer.aside = false;
  set_drained(peer, drain);
  return {to_line(status())};
}

void Membership::check_drain(const FrontPeer& peer) const {
  const auto attention = static_cast<std::int32_t>(attention_workers_);
  const bool is_ffn = peer.place().rank >= attention;
  const auto stands_in = [&](const auto& other) {
    const bool does_the_same = is_ffn ? other->place().seat() == peer.place().seat() : other->place().rank < attention;
    return other.get() != &peer && does_the_same && other->usable();
  };
  if (std::ranges::any_of(peers_, stands_in)) return;
  throw Error(ErrorCode::kUnavailable,
              is_ffn ? format("{} holds a part of every layer, and no replica of it is here", peer.title())
                     : format("{} is the last attention worker that is here", peer.title()));
}

OrderedJson Membership::status() const {
  static constexpr const char* kPhases[] = {"apart", "forming", "running"};
  OrderedJson workers = OrderedJson::array();
  for (const auto& peer : peers_) {
    OrderedJson worker = peer->status();
    if (phase_ != Phase::kApart && peer->usable() && !peer->takes_part)
      worker["state"] = peer->aside ? "aside" : "standby";
    if (peer->place().rank < static_cast<std::int32_t>(attention_workers_))
      worker["requests"] = pending_.count_of(peer->place().rank);
    workers.push_back(std::move(worker));
  }
  std::lock_guard lock(mutex_);
  return {{"deployment", deployment_.name}, {"layout", identity_.layout},
          {"links", identity_.links},       {"phase", kPhases[static_cast<std::size_t>(phase_)]},
          {"epoch", epoch_.load()},         {"missing", phase_ == Phase::kFormed ? "" : standing_.missing},
          {"slow", who_is_slow()},          {"moved_requests", moved_requests()},
          {"moved_pages", moved_pages()},   {"workers", std::move(workers)}};
}

// Who is missing, for those who wait; and after a while an end of waiting.
void Membership::tell_missing(Nanoseconds now) {
  std::vector<std::string> missing;
  const std::vector<FrontPeer*> holders = seated();
  for (const auto& peer : peers_)
    if (!holders[static_cast<std::size_t>(peer->place().seat())] && !peer->present() && !peer->drained())
      missing.push_back(format("{} is missing: {}", peer->title(), peer->why_away()));
  std::lock_guard lock(mutex_);
  standing_.missing = join(missing, "; ");
  if (!standing_.formed_once || now - lost_at_ <= deployment_.link.repair_ms_max * kMillisecond) return;
  if (standing_.missing.empty()) standing_.missing = "the workers have not met in time";
  if (std::exchange(given_up_, true)) return;
  pending_.end_all(FinishReason::kError, Status(ErrorCode::kUnavailable, standing_.missing));
}

}  // namespace tandem
