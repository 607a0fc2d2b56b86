// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "sim/fleet/fleet.h"

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include "base/format.h"
#include "roles/deployment_engine.h"
#include "sim/fleet/front_process.h"
#include "sim/fleet/worker_process.h"

namespace tandem {

namespace {

constexpr Nanoseconds kTroubleBegins = 300 * kMillisecond, kTroubleEnds = 6 * kSecond;
constexpr Nanoseconds kQuiet = 3 * kSecond;      // after the last answer, before the caches are looked at
constexpr Nanoseconds kForEver = 200 * kSecond;  // after the trouble
constexpr std::int64_t kEventsMax = 20'000'000;
constexpr std::size_t kDueMax = 200'000;
constexpr int kClients = 14;

struct Client {
  std::size_t request = 0;
  RequestId id = 0;  // of the try that runs
  std::shared_ptr<EventStream> events;
  std::vector<std::int32_t> tokens;
  bool gives_up = false;  // after a while
  bool cancelled = false, done = false;
};

struct Violation {
  std::string what;
};

class Fleet {
 public:
  Fleet(const FleetModel& model, std::uint64_t seed)
      : model_(model),
        count_(static_cast<std::int32_t>(model.workers.size())),
        rng_(seed),
        network_(stage_, count_ + 1, rng_),
        workers_(static_cast<std::size_t>(count_)) {}

  FleetRun run() {
    try {
      begin();
      until([this] { return stage_.now() >= kTroubleEnds; }, kTroubleEnds + kSecond);
      repair();
      until([this] { return all_done(); }, stage_.now() + kForEver);
      const Nanoseconds quiet = stage_.now() + kQuiet;
      until([&] { return stage_.now() >= quiet; }, quiet + kSecond);
      check_empty();
    } catch (const Violation& violation) {
      say("FAILED    " + violation.what);
      run_.failure = violation.what;
    } catch (const std::exception& error) {
      say(format("FAILED    {}", error.what()));
      run_.failure = error.what();
    }
    run_.faults.network = network_.counts;
    count_moves();
    run_.time = stage_.now();
    end_all();
    return std::move(run_);
  }

 private:
  void say(const std::string& line) {
    run_.log.push_back(format("{:>12.3f} ms  {}", static_cast<double>(stage_.now()) * 1e-6, line));
  }
  Nanoseconds random_time(Nanoseconds least, Nanoseconds most) {
    return least + static_cast<Nanoseconds>(rng_.below(static_cast<std::uint64_t>(most - least + 1)));
  }
  std::string name(std::int32_t process) const {
    return process == count_ ? "front" : worker_name(model_.deployment, process);
  }

  // ---- what is planned beforehand

  void begin() {
    static constexpr Nanoseconds kLatencies[] = {20 * kMicrosecond, 100 * kMicrosecond, 500 * kMicrosecond,
                                                 2 * kMillisecond};
    network_.latency_min = kLatencies[rng_.below(4)];
    network_.faults.stale = .5;
    if (rng_.below(2) == 0) {
      network_.faults.lose = .02 * rng_.uniform();
      network_.faults.delay = .05 * rng_.uniform();
      network_.faults.repeat = .05 * rng_.uniform();
      network_.faults.damage = .02 * rng_.uniform();
      network_.faults.delay_max = random_time(0, 100 * kMillisecond);
    }
    say(format("begin     {}, messages take {} us and up", model_.workers.front().identity.layout,
               network_.latency_min / kMicrosecond));
    for (std::int32_t rank = 0; rank < count_; ++rank) start_worker(rank, random_time(0, 300 * kMillisecond));
    start_front(random_time(0, 200 * kMillisecond));
    static constexpr Nanoseconds kAsking[] = {20 * kMillisecond, kSecond, kTroubleEnds - kSecond};
    const Nanoseconds asking = kAsking[rng_.below(3)];
    for (std::size_t c = 0; c < kClients; ++c) {
      clients_.push_back({.request = rng_.below(model_.requests.size()), .gives_up = rng_.below(8) == 0});
      ask(c, random_time(0, asking));
    }
    const std::uint64_t troubles = 2 + rng_.below(6);
    for (std::uint64_t i = 0; i < troubles; ++i)
      stage_.at(random_time(kTroubleBegins, kTroubleEnds - kSecond), [this] { trouble(); });
  }

  void start_worker(std::int32_t rank, Nanoseconds after) {
    auto& worker = workers_[static_cast<std::size_t>(rank)];
    stage_.at(stage_.now() + after, [this, rank, &worker] {
      if (worker || ending_) return;
      say(format("starts    {}", name(rank)));
      worker =
          std::make_unique<WorkerProcess>(model_, rank, stage_, network_, rng_, ++processes_,
                                          [this, rank](const std::string& line) { say(name(rank) + ": " + line); });
    });
  }

  void start_front(Nanoseconds after) {
    stage_.at(stage_.now() + after, [this] {
      if (front_) return;
      say("starts    front");
      front_ = std::make_unique<FrontProcess>(model_, stage_, network_, rng_,
                                              [this](const std::string& line) { say("front: " + line); });
    });
  }

  // ---- clients

  void ask(std::size_t c, Nanoseconds at) {
    stage_.at(at, [this, c] {
      Client& client = clients_[c];
      client.tokens.clear();
      if (!front_ || !front_->membership().standing().formed_once) return ask(c, stage_.now() + 100 * kMillisecond);
      Request request = model_.requests[client.request];
      request.id = client.id = ++last_id_;
      client.events = std::make_shared<EventStream>();
      client.events->listen([this, c] { news_.insert(c); });
      const std::int32_t rank = least_busy();
      say(format("asks      {} (request {}) of {}", client.id, client.request, name(rank)));
      front_->membership().submit(std::move(request), rank, client.events);
      front_->wake();
      if (client.gives_up && !client.cancelled) give_up(c, client.id, random_time(0, 2 * kSecond));
    });
  }

  std::int32_t least_busy() {
    Membership& membership = front_->membership();
    std::int32_t best = 0;
    for (std::size_t a = 1; a < membership.attention_workers(); ++a) {
      const auto rank = static_cast<std::int32_t>(a);
      const bool here = membership.peers()[a]->available(),
                 best_here = membership.peers()[static_cast<std::size_t>(best)]->available();
      if (here != best_here ? here : membership.outstanding(rank) < membership.outstanding(best)) best = rank;
    }
    return best;
  }

  void give_up(std::size_t c, RequestId id, Nanoseconds after) {
    stage_.at(stage_.now() + after, [this, c, id] {
      Client& client = clients_[c];
      if (client.id != id || client.done || !front_) return;
      say(format("gives up  {}", id));
      client.cancelled = true;
      front_->membership().cancel(id);
      front_->wake();
    });
  }

  void hear(Client& client, std::size_t c, const RequestEvent& event) {
    const std::vector<std::int32_t>& right = model_.answers[client.request];
    if (client.done) throw Violation{format("request {} goes on after its end", client.id)};
    for (const SampledToken& token : event.tokens) {
      if (client.tokens.size() >= right.size())
        throw Violation{format("request {} has more than its {} tokens", client.id, right.size())};
      if (token.id != right[client.tokens.size()])
        throw Violation{format("token {} of request {} is {}, {} is right", client.tokens.size(), client.id, token.id,
                               right[client.tokens.size()])};
      client.tokens.push_back(token.id);
      ++run_.tokens;
    }
    if (event.finish != FinishReason::kNone) end(client, c, event);
  }

  void end(Client& client, std::size_t c, const RequestEvent& event) {
    say(format("ends      {} with {} after {} tokens{}", client.id, tandem::name(event.finish), client.tokens.size(),
               event.status ? "" : ": " + event.status.error().message()));
    switch (event.finish) {
      case FinishReason::kLength:
      case FinishReason::kStop:
        if (client.tokens.size() != model_.answers[client.request].size())
          throw Violation{format("request {} ended after {} of {} tokens", client.id, client.tokens.size(),
                                 model_.answers[client.request].size())};
        client.done = true;
        ++run_.answers;
        return;
      case FinishReason::kCancelled:
        if (!client.cancelled) throw Violation{format("request {} was cancelled by nobody", client.id)};
        client.done = true;
        return;
      default:
        if (event.status.error().code() != ErrorCode::kUnavailable)
          throw Violation{format("request {} ended: {}", client.id, event.status.error().message())};
        // The client asks again, as one of HTTP does after a 503.
        client.id = 0;
        if (client.cancelled)
          client.done = true;
        else
          ask(c, stage_.now() + random_time(10 * kMillisecond, kSecond));
    }
  }

  bool all_done() const {
    return std::ranges::all_of(clients_, [](const Client& client) { return client.done; });
  }

  // ---- what goes wrong

  void trouble() {
    const auto process = static_cast<std::int32_t>(rng_.below(static_cast<std::uint64_t>(count_ + 1)));
    const auto worker = static_cast<std::int32_t>(rng_.below(static_cast<std::uint64_t>(count_)));
    switch (rng_.below(10)) {
      case 0:
      case 1:
      case 2:
        return kill_worker(worker, rng_.below(3) == 0);
      case 3:
        return pause(worker, random_time(10 * kMillisecond, 3 * kSecond));
      case 4:
        return cut(process, worker, random_time(20 * kMillisecond, 3 * kSecond));
      case 5:
        for (std::int32_t other = 0; other <= count_; ++other) cut(process, other, 2 * kSecond);
        return;
      case 6:
        return rng_.below(2) == 0 ? kill_front(rng_.below(3) == 0) : kill_worker(worker, false);
      default:
        return drain(rng_.below(3) == 0 ? worker : busiest());
    }
  }

  // So that there is something to move.
  std::int32_t busiest() const {
    std::int32_t best = 0;
    for (std::int32_t rank = 1; front_ && rank < std::ssize(model_.deployment.attention); ++rank)
      if (front_->membership().outstanding(rank) > front_->membership().outstanding(best)) best = rank;
    return best;
  }

  void kill_worker(std::int32_t rank, bool silent) {
    auto& worker = workers_[static_cast<std::size_t>(rank)];
    if (!worker) return;
    ++(silent ? run_.faults.silent_kills : run_.faults.kills);
    say(format("{} {}", silent ? "LOST     " : "KILLED   ", name(rank)));
    worker->vanish(silent);
    worker.reset();
    // Disks are slow at times.
    start_worker(rank, rng_.below(8) == 0 ? random_time(kSecond, 15 * kSecond) : random_time(kMillisecond, kSecond));
  }

  // Its clients' connections end with it; they ask the next one.
  void kill_front(bool silent) {
    if (!front_) return;
    ++run_.faults.front_kills;
    say(format("{} front", silent ? "LOST     " : "KILLED   "));
    for (std::size_t c = 0; c < clients_.size(); ++c) {
      Client& client = clients_[c];
      if (client.done || client.id == 0) continue;
      client.events->listen({});
      client.id = 0;
      if (client.cancelled)
        client.done = true;
      else
        ask(c, stage_.now() + random_time(10 * kMillisecond, kSecond));
    }
    count_moves();
    front_->vanish(silent);
    front_.reset();
    start_front(random_time(10 * kMillisecond, kSecond));
  }

  void count_moves() {
    if (!front_) return;
    run_.faults.moved_requests += front_->membership().moved_requests();
    run_.faults.moved_pages += front_->membership().moved_pages();
  }

  void pause(std::int32_t rank, Nanoseconds time) {
    WorkerProcess* const worker = workers_[static_cast<std::size_t>(rank)].get();
    if (!worker || worker->held().frozen()) return;
    ++run_.faults.pauses;
    say(format("PAUSED    {} for {} ms", name(rank), time / kMillisecond));
    worker->held().freeze();
    stage_.at(stage_.now() + time, [this, rank, worker] {
      if (workers_[static_cast<std::size_t>(rank)].get() != worker) return;
      say(format("goes on   {}", name(rank)));
      worker->held().thaw();
    });
  }

  void cut(std::int32_t a, std::int32_t b, Nanoseconds time) {
    if (a == b) return;
    ++run_.faults.cuts;
    say(format("CUT       {} from {} for {} ms", name(a), name(b), time / kMillisecond));
    network_.cut(a, b);
    stage_.at(stage_.now() + time, [this, a, b] {
      say(format("healed    {} and {}", name(a), name(b)));
      network_.heal(a, b);
    });
  }

  void drain(std::int32_t rank) {
    if (!order(OrderKind::kDrain, rank)) return;
    ++run_.faults.drains;
    stage_.at(stage_.now() + random_time(100 * kMillisecond, 2 * kSecond),
              [this, rank] { order(OrderKind::kAdd, rank); });
  }

  bool order(OrderKind kind, std::int32_t rank) {
    if (!front_) return false;
    try {
      front_->membership().obey({.deployment = model_.deployment.name, .kind = kind, .rank = rank});
    } catch (const Error&) {
      return false;  // the last one is not drained
    }
    front_->wake();
    return true;
  }

  void repair() {
    say("repaired  all that failed");
    network_.faults = {};
    network_.heal_all();
    for (auto& worker : workers_)
      if (worker && worker->held().frozen()) worker->held().thaw();
  }

  // ---- checks

  void until(const std::function<bool()>& done, Nanoseconds latest) {
    while (!done()) {
      if (stage_.now() > latest) throw Violation{waiting()};
      if (++run_.events > kEventsMax) throw Violation{format("{} events and no end", kEventsMax)};
      if (!stage_.step()) throw Violation{"nothing happens any more"};
      check();
    }
  }

  std::string waiting() const {
    std::vector<std::string> ids;
    for (const Client& client : clients_)
      if (!client.done) ids.push_back(format("{}", client.id));
    return format("after {} s requests still wait: {}", stage_.now() / kSecond, join(ids, ", "));
  }

  void check() {
    for (const std::size_t c : std::exchange(news_, {})) {
      Client& client = clients_[c];
      const std::shared_ptr<EventStream> events = client.events;
      while (const std::optional<RequestEvent> event = events->pop(0))
        if (event->id == client.id) hear(client, c, *event);
    }
    if (front_) run_.epochs = std::max<std::int64_t>(run_.epochs, front_->membership().epoch());
    for (std::int32_t rank = 0; rank < count_; ++rank)
      if (const auto& worker = workers_[static_cast<std::size_t>(rank)]) check_blocks(rank, worker->report());
    if (stage_.due() > kDueMax) throw Violation{format("{} things are due at once", stage_.due())};
  }

  void check_blocks(std::int32_t rank, const Report& report) {
    std::int64_t& most = preemptions_[rank];
    run_.preemptions += std::max<std::int64_t>(0, report.load.preemptions - most);
    most = report.load.preemptions;
    const KvSpace::Usage& kv = report.load.kv;
    if (kv.held < 0 || kv.cached < 0 || kv.held + kv.cached > kv.blocks)
      throw Violation{format("{} holds {} blocks and keeps {}, of {}", name(rank), kv.held, kv.cached, kv.blocks)};
  }

  void check_empty() const {
    for (std::int32_t rank = 0; rank < count_; ++rank) {
      const auto& worker = workers_[static_cast<std::size_t>(rank)];
      if (!worker) continue;  // its disk is slow
      const Scheduler::Load load = worker->report().load;
      if (load.running != 0 || load.waiting != 0 || load.kv.held != 0)
        throw Violation{format("{} is idle with {} running, {} waiting, {} blocks held", name(rank), load.running,
                               load.waiting, load.kv.held)};
    }
  }

  void end_all() {
    ending_ = true;
    for (Client& client : clients_)
      if (client.events) client.events->listen({});
    if (front_) front_->vanish(true);
    for (auto& worker : workers_) {
      if (worker) worker->vanish(true);
      worker.reset();
    }
    front_.reset();
  }

  const FleetModel& model_;
  const std::int32_t count_;
  Rng rng_;
  Stage stage_;
  FleetNetwork network_;
  std::vector<std::unique_ptr<WorkerProcess>> workers_;  // by rank
  std::unique_ptr<FrontProcess> front_;
  std::vector<Client> clients_;
  std::set<std::size_t> news_;
  std::map<std::int32_t, std::int64_t> preemptions_;  // by rank, of the epoch that runs
  RequestId last_id_ = 0;
  std::int64_t processes_ = 0;
  bool ending_ = false;
  FleetRun run_;
};

}  // namespace

FleetFaults& FleetFaults::operator+=(const FleetFaults& o) {
  kills += o.kills;
  silent_kills += o.silent_kills;
  pauses += o.pauses;
  cuts += o.cuts;
  front_kills += o.front_kills;
  drains += o.drains;
  moved_requests += o.moved_requests;
  moved_pages += o.moved_pages;
  network.messages += o.network.messages;
  network.lost += o.network.lost;
  network.delayed += o.network.delayed;
  network.repeated += o.network.repeated;
  network.damaged += o.network.damaged;
  network.stale += o.network.stale;
  return *this;
}

FleetRun simulate_fleet(const FleetModel& model, std::uint64_t seed) {
  return Fleet(model, seed).run();
}

}  // namespace tandem
