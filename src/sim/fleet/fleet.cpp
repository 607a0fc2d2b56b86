// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "sim/fleet/fleet.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "base/format.h"
#include "checkpoint/checkpoint.h"
#include "engine/engine.h"
#include "model/share.h"
#include "roles/deployment_engine.h"
#include "roles/membership.h"
#include "roles/role_service.h"

namespace tandem {
namespace {

constexpr std::int64_t kHeartbeatMs = 100, kLostAfterMs = 1'000, kRepairMs = 8'000, kResendAfterMs = 60;
constexpr Nanoseconds kTroubleBegins = 300 * kMillisecond, kTroubleEnds = 6 * kSecond;
constexpr Nanoseconds kQuiet = 3 * kSecond;      // after the last answer, before the caches are looked at
constexpr Nanoseconds kForEver = 200 * kSecond;  // after the trouble
constexpr std::int64_t kEventsMax = 20'000'000;
constexpr std::size_t kDueMax = 200'000;
constexpr int kClients = 14;

// ---- a worker's process

// Endpoints take a while, now and then a long one.
class Endpoints final : public EndpointMaker {
 public:
  Endpoints(Stage& stage, StageProcess& process, FleetNetwork& network, FleetNetwork::Process number, Rng& rng,
            std::function<void()> wake)
      : stage_(stage), process_(process), network_(network), number_(number), rng_(rng), wake_(std::move(wake)) {}

  void begin(PeerRank rank, std::int32_t peers, const UcxConfig& config) override {
    begun_ = {rank, peers, config.message_bytes_max};
    const Nanoseconds most = rng_.below(50) == 0 ? 4 * kSecond : 30 * kMillisecond;
    done_at_ = stage_.now() + static_cast<Nanoseconds>(rng_.below(static_cast<std::uint64_t>(most)));
    stage_.at(
        done_at_,
        [alive = std::weak_ptr(alive_), this] {
          if (!alive.expired()) wake_();
        },
        &process_);
  }
  bool busy() const override { return begun_.has_value(); }
  std::unique_ptr<MeetingTransport> take() override {
    if (!begun_ || stage_.now() < done_at_) return nullptr;
    const Begun begun = *std::exchange(begun_, std::nullopt);
    return network_.make_endpoint(number_, begun.rank, begun.peers, begun.message_bytes_max);
  }
  Status overdue() const override { return Status::ok(); }

 private:
  struct Begun {
    PeerRank rank;
    std::int32_t peers;
    std::size_t message_bytes_max;
  };
  Stage& stage_;
  StageProcess& process_;
  FleetNetwork& network_;
  const FleetNetwork::Process number_;
  Rng& rng_;
  const std::function<void()> wake_;
  std::optional<Begun> begun_;
  Nanoseconds done_at_ = 0;
  const std::shared_ptr<int> alive_ = std::make_shared<int>();
};

class World final : public WorkerWorld {
 public:
  // number: of the process, of all that there have been.
  World(Stage& stage, StageProcess& process, FleetNetwork& network, std::int32_t rank, Rng& rng, std::int64_t number,
        std::function<void()> wake)
      : stage_(stage),
        process_(process),
        rng_(rng),
        number_(number),
        wake_(std::move(wake)),
        endpoints_(stage, process, network, rank, rng, wake_) {}

  const Clock& clock() const override { return stage_.clock(); }
  EndpointMaker& endpoints() override { return endpoints_; }
  std::unique_ptr<WorkerThread> start(std::function<void()> run) override {
    struct Thread final : WorkerThread {
      Thread(Stage& stage, StageProcess& process, std::function<void()> run) : actor(stage, process, std::move(run)) {}
      Actor actor;
    };
    return std::make_unique<Thread>(stage_, process_, std::move(run));
  }
  void wake() override { wake_(); }
  void fill_random(std::span<std::byte> bytes) override {
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(rng_.below(256));
  }
  std::int64_t process() const override { return number_; }

 private:
  Stage& stage_;
  StageProcess& process_;
  Rng& rng_;
  const std::int64_t number_;
  const std::function<void()> wake_;
  Endpoints endpoints_;
};

using Say = std::function<void(const std::string&)>;

// Calls turn() when woken, and after a while anyhow.
class Turns {
 public:
  Turns(Stage& stage, StageProcess& process, std::function<Nanoseconds()> turn)
      : stage_(stage), process_(process), turn_(std::move(turn)) {}
  ~Turns() { ++*turns_; }
  void wake() { due(stage_.now()); }

 private:
  void due(Nanoseconds time) {
    if (time >= next_) return;
    next_ = time;
    stage_.at(
        time,
        [this, turns = turns_, mine = *turns_] {
          if (*turns != mine) return;
          ++*turns_;  // others that are due are due no more
          next_ = kNever;
          const Nanoseconds pause = turn_();
          due(stage_.now() + pause);
        },
        &process_);
  }

  static constexpr Nanoseconds kNever = INT64_MAX;
  Stage& stage_;
  StageProcess& process_;
  const std::function<Nanoseconds()> turn_;
  std::shared_ptr<std::uint64_t> turns_ = std::make_shared<std::uint64_t>(0);
  Nanoseconds next_ = kNever;
};

class WorkerProcess {
 public:
  WorkerProcess(const FleetModel& model, std::int32_t rank, Stage& stage, FleetNetwork& network, Rng& rng,
                std::int64_t number, Say say)
      : held_(stage),
        stage_(stage),
        network_(network),
        rank_(rank),
        say_(std::move(say)),
        turns_(stage, held_, [this] { return turn(); }),
        world_(stage, held_, network, rank, rng, number, [this] { turns_.wake(); }) {
    network.appear(
        rank, held_, [this](std::unique_ptr<ControlChannel> channel) { visit(std::move(channel)); },
        [this] { turns_.wake(); });
    service_ = std::make_unique<RoleService>(model.deployment, rank, model.workers[static_cast<std::size_t>(rank)],
                                             world_, ConstraintFactory{}, say_);
    turns_.wake();
  }
  ~WorkerProcess() { vanish(true); }

  // From now on nobody hears of it; what it was is cleared away.
  void vanish(bool silent) {
    if (!service_) return;
    network_.vanish(rank_, silent);
    visitors_.clear();
    service_.reset();
  }
  StageProcess& held() { return held_; }
  Report report() const { return service_->report(); }

 private:
  struct Visitor {
    std::unique_ptr<ControlChannel> channel;
    Nanoseconds since;
  };

  void visit(std::unique_ptr<ControlChannel> channel) {
    visitors_.push_back({std::move(channel), stage_.now()});
    turns_.wake();
  }

  Nanoseconds turn() {
    service_->turn();
    for (Visitor& visitor : std::exchange(visitors_, {})) {
      std::vector<ControlMessage> said;
      const Status moved = visitor.channel->move(said);
      if (!said.empty()) {
        const Status taken = service_->greet(std::move(visitor.channel), said);
        if (!taken) say_("refuses a front: " + taken.error().message());
      } else if (moved && stage_.now() - visitor.since < kLostAfterMs * kMillisecond) {
        visitors_.push_back(std::move(visitor));
      }
    }
    return service_->joins() ? kMillisecond : kHeartbeatMs * kMillisecond;
  }

  StageProcess held_;
  Stage& stage_;
  FleetNetwork& network_;
  const std::int32_t rank_;
  const Say say_;
  Turns turns_;
  World world_;
  std::vector<Visitor> visitors_;
  std::unique_ptr<RoleService> service_;
};

// ---- the front's process

class FrontProcess {
 public:
  FrontProcess(const FleetModel& model, Stage& stage, FleetNetwork& network, Rng& rng, Say say)
      : held_(stage),
        network_(network),
        rank_(static_cast<std::int32_t>(model.workers.size())),
        dialer_(network, rank_),
        turns_(stage, held_,
               [this] {
                 membership_.turn();
                 return 50 * kMillisecond;
               }),
        membership_(
            model.deployment, model.workers.front().identity,
            {.clock = stage.clock(), .dialer = dialer_, .random_number = [&rng] { return rng.next(); }, .say = say}) {
    network.appear(rank_, held_, nullptr, [this] { turns_.wake(); });
    turns_.wake();
  }
  ~FrontProcess() { vanish(true); }

  void vanish(bool silent) {
    if (!std::exchange(vanished_, true)) network_.vanish(rank_, silent);
  }
  StageProcess& held() { return held_; }
  Membership& membership() { return membership_; }
  void wake() { turns_.wake(); }

 private:
  class Dialer final : public ControlDialer {
   public:
    Dialer(FleetNetwork& network, std::int32_t self) : network_(network), self_(self) {}
    std::unique_ptr<ControlChannel> dial(const WorkerPlace& place, std::string&) override {
      return network_.dial(self_, place.rank);
    }

   private:
    FleetNetwork& network_;
    const std::int32_t self_;
  };

  StageProcess held_;
  FleetNetwork& network_;
  const std::int32_t rank_;
  Dialer dialer_;
  Turns turns_;
  Membership membership_;
  bool vanished_ = false;
};

// ---- one run

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

std::vector<Request> some_requests(std::int32_t vocab) {
  std::vector<Request> requests;
  Rng rng(1);
  for (int i = 0; i < 10; ++i) {
    Request request;
    // Long prompts, prompts with a beginning in common, and answers that outgrow the blocks they were promised.
    const std::uint64_t length = i % 3 == 0 ? 3 + rng.below(120) : i % 3 == 1 ? 3 + rng.below(40) : 45 + rng.below(18);
    for (std::uint64_t t = 0; t < length; ++t)
      request.prompt.push_back(static_cast<std::int32_t>(rng.below(static_cast<std::uint64_t>(vocab))));
    if (i % 3 == 1) request.prompt.insert(request.prompt.begin(), 70, 5);
    request.new_tokens_max = static_cast<std::int32_t>((i % 3 == 2 ? 80 : 4) + rng.below(28));
    request.sampling.temperature = i % 2 == 0 ? 0.f : 0.9f;
    request.sampling.seed = 100 + static_cast<std::uint64_t>(i);
    requests.push_back(std::move(request));
  }
  return requests;
}

std::vector<std::int32_t> answer_of(Engine& engine, Request request) {
  auto events = std::make_shared<EventStream>();
  request.id = engine.next_id();
  std::vector<std::int32_t> tokens;
  if (const Status status = engine.submit(std::move(request), events); !status)
    throw Error(status.error().code(), status.error().message());
  for (bool ended = false; !ended;) {
    const std::optional<RequestEvent> event = events->pop(60 * kSecond);
    if (!event || event->finish == FinishReason::kError) throw Error(ErrorCode::kInternal, "no answer to compare with");
    for (const SampledToken& token : event->tokens) tokens.push_back(token.id);
    ended = event->finish != FinishReason::kNone;
  }
  return tokens;
}

}  // namespace

FleetModel FleetModel::load(const std::string& checkpoint, std::int32_t attention, std::int32_t ffn,
                            std::int32_t replicas) {
  FleetModel m;
  Deployment& d = m.deployment;
  d.name = "simulated";
  d.model = checkpoint;
  d.engine = {.device = "cpu",
              .kv_dtype = "f32",
              .micro_batches = 2,
              .rows_per_micro_batch_max = 32,
              .sequences_max = 8,
              .context_tokens_max = 256,
              .kv_tokens = 320};
  d.split.experts = ffn;
  d.link.heartbeat_ms = kHeartbeatMs;
  d.link.lost_after_ms = kLostAfterMs;
  d.link.repair_ms_max = kRepairMs;
  const std::int32_t workers = attention + ffn + replicas;
  for (std::int32_t rank = 0; rank < workers; ++rank) {
    WorkerPlace place{.rank = rank, .host = format("host{}", rank), .port = 7000, .devices = {}};
    if (rank >= attention + ffn) place.replica_of = attention + (rank - attention - ffn) % ffn;
    (rank < attention ? d.attention : d.ffn).push_back(place);
  }
  for (std::int32_t rank = 0; rank < workers; ++rank) {
    LoadedWorker worker = load_worker(d, rank, nullptr);
    worker.config.threads = worker.config.layout.workers();  // one each: no thread is anybody else's
    worker.config.resend_after_ms = kResendAfterMs;
    m.workers.push_back(std::move(worker));
  }
  m.requests = some_requests(m.workers.front().model->config().vocab);
  EngineConfig alone = engine_config(d, 0);
  alone.layout = {};
  alone.kv_tokens = 2048;
  const std::unique_ptr<Engine> engine = Engine::start(*Checkpoint::open(checkpoint), alone);
  for (const Request& request : m.requests) m.answers.push_back(answer_of(*engine, request));
  return m;
}

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
