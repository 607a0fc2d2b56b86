// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "roles/role_service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/format.h"
#include "checkpoint/checkpoint.h"
#include "engine/engine.h"
#include "roles/deployment_engine.h"
#include "roles/worker_host.h"
#include "roles/worker_world.h"
#include "tests/base/error_of.h"
#include "tests/roles/told_channel.h"
#include "transport/inproc/inproc.h"

namespace tandem {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

constexpr std::int64_t kPatienceMs = 60'000;

std::vector<std::byte> bytes_of(const std::string& text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

// A VirtualClock is of one thread; workers have their own.
class ToldClock final : public Clock {
 public:
  Nanoseconds now() const override { return now_; }
  void pass(std::int64_t ms) { now_ += ms * kMillisecond; }

 private:
  std::atomic<Nanoseconds> now_ = 1'000 * kMillisecond;
};

// Where the endpoints of both workers meet, and what is told about it.
struct Meeting {
  std::atomic<bool> ready = false, broken = false, takes_memory = true;
  std::atomic<int> endpoints = 0;
  std::vector<std::string> hellos;  // that were taken

  std::unique_ptr<Transport> endpoint(PeerRank rank, std::int32_t peers, const UcxConfig& config) {
    if (taken.empty() || taken[static_cast<std::size_t>(rank)]) {
      network = std::make_unique<InprocNetwork>(
          peers,
          InprocConfig{.sends_max = config.sends_max, .message_bytes_max = config.message_bytes_max, .spin = {}});
      taken.assign(static_cast<std::size_t>(peers), false);
    }
    taken[static_cast<std::size_t>(rank)] = true;
    return network->endpoint(rank);
  }

 private:
  std::unique_ptr<InprocNetwork> network;
  std::vector<bool> taken;
};

class ToldEndpoint final : public MeetingTransport {
 public:
  ToldEndpoint(Meeting& meeting, std::unique_ptr<Transport> inner) : meeting_(meeting), inner_(std::move(inner)) {
    ++meeting_.endpoints;
  }
  ~ToldEndpoint() override { --meeting_.endpoints; }

  std::vector<std::byte> hello_for(PeerRank peer) const override { return bytes_of(format("{} to {}", rank(), peer)); }
  void connect(std::span<const std::byte> hello) override {
    const std::string text(reinterpret_cast<const char*>(hello.data()), hello.size());
    if (!text.ends_with(format(" to {}", rank()))) throw Error(ErrorCode::kInvalidArgument, "a hello for another");
    meeting_.hellos.push_back(text);
  }
  bool ready() override { return meeting_.ready; }

  TransportCapabilities capabilities() const override { return inner_->capabilities(); }
  PeerRank rank() const override { return inner_->rank(); }
  std::int32_t peers() const override { return inner_->peers(); }
  Status register_region(std::span<std::byte> region) override {
    if (!meeting_.takes_memory) return {ErrorCode::kOutOfResources, "memory cannot be pinned"};
    return inner_->register_region(region);
  }
  Status post_send(PeerRank to, std::span<const std::byte> message, OperationId operation) override {
    return inner_->post_send(to, message, operation);
  }
  Status post_receive(PeerRank from, std::span<std::byte> buffer, OperationId operation) override {
    return inner_->post_receive(from, buffer, operation);
  }
  std::size_t poll(std::span<TransportEvent> events, Nanoseconds wait) override {
    if (meeting_.broken) throw Error(ErrorCode::kInternal, "the network card is gone");
    return inner_->poll(events, wait);
  }
  void wake() override { inner_->wake(); }

 private:
  Meeting& meeting_;
  const std::unique_ptr<Transport> inner_;
};

// At once: how long endpoints may take is endpoint_maker_test.cpp's and front_test.cpp's.
class ToldEndpoints final : public EndpointMaker {
 public:
  explicit ToldEndpoints(Meeting& meeting) : meeting_(meeting) {}
  void begin(PeerRank rank, std::int32_t peers, const UcxConfig& config) override {
    made_ = std::make_unique<ToldEndpoint>(meeting_, meeting_.endpoint(rank, peers, config));
  }
  bool busy() const override { return made_ != nullptr; }
  std::unique_ptr<MeetingTransport> take() override { return std::move(made_); }
  Status overdue() const override { return overdue_; }
  void stick() { overdue_ = Status(ErrorCode::kUnavailable, "the endpoint is not made after 10000 ms"); }

 private:
  Meeting& meeting_;
  std::unique_ptr<MeetingTransport> made_;
  Status overdue_;
};

class ToldWorld final : public WorkerWorld {
 public:
  explicit ToldWorld(Meeting& meeting) : endpoints_(meeting) {}
  const ToldClock& clock() const override { return clock_; }
  ToldEndpoints& endpoints() override { return endpoints_; }
  std::unique_ptr<WorkerThread> start(std::function<void()> run) override {
    return machine_.start([this, run = std::move(run)] {
      ++threads;
      run();
      --threads;
    });
  }
  void wake() override {
    std::lock_guard lock(mutex_);
    woken_ = true;
    changed_.notify_all();
  }
  void fill_random(std::span<std::byte> bytes) override { machine_.fill_random(bytes); }
  std::int64_t process() const override { return 4711; }

  // Until it was woken since the last call.
  void wait_for_wake() {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, std::chrono::milliseconds(kPatienceMs), [&] { return woken_; }))
      ADD_FAILURE() << "nobody wakes the control loop";
    woken_ = false;
  }
  void pass(std::int64_t ms) { clock_.pass(ms); }

  std::atomic<int> threads = 0;  // of workers that run

 private:
  ToldEndpoints endpoints_;
  ToldClock clock_;
  MachineWorld machine_{[] {}, {}};
  std::mutex mutex_;
  std::condition_variable changed_;
  bool woken_ = false;
};

Deployment small_deployment() {
  Deployment d{.name = "test", .model = "tests/goldens/qwen3_moe"};
  d.engine = {.device = "cpu",
              .kv_dtype = "f32",
              .micro_batches = 2,
              .rows_per_micro_batch_max = 32,
              .sequences_max = 8,
              .context_tokens_max = 256,
              .kv_tokens = 2048};
  d.link.heartbeat_ms = 500;
  d.link.lost_after_ms = 5'000;
  d.attention = {{.rank = 0, .host = "127.0.0.1", .port = 7000, .devices = {}}};
  d.ffn = {{.rank = 1, .host = "127.0.0.1", .port = 7001, .devices = {}}};
  return d;
}

// A worker's service, and the front that the test is for it.
class Served {
 public:
  Served(const Deployment& deployment, std::int32_t rank, Meeting& meeting)
      : world(meeting),
        loaded(load_worker(deployment, rank, nullptr)),
        service(deployment, rank, loaded, world, {}, [this](const std::string& line) { said.push_back(line); }) {}

  // Somebody greets; what comes of it.
  Status greet(std::shared_ptr<ToldWire> wire, ControlMessage first) {
    std::vector<ControlMessage> messages;
    messages.push_back(std::move(first));
    return service.greet(std::make_unique<ToldChannel>(std::move(wire)), messages);
  }
  void greet() { ASSERT_TRUE(greet(wire, Greeting{.identity = loaded.identity, .rank = service.welcome().rank})); }
  // The front says something and the worker takes turns.
  void hear(ControlMessage message) {
    wire->coming.push_back(std::move(message));
    turns();
  }
  void turns() {
    for (int i = 0; i < 3; ++i) service.turn();
  }
  Refusal last_refusal() const {
    const std::vector<Refusal> refusals = wire->all<Refusal>();
    return refusals.empty() ? Refusal{} : refusals.back();
  }

  ToldWorld world;
  const LoadedWorker loaded;
  std::vector<std::string> said;
  RoleService service;
  std::shared_ptr<ToldWire> wire = std::make_shared<ToldWire>();
};

class RoleServiceTest : public testing::Test {
 protected:
  Served& attention() { return served(attention_, 0); }
  Served& ffn() { return served(ffn_, 1); }
  // As the front does it, for epoch 1; a worker alone meets a peer that says nothing.
  void run_alone(Served& served) {
    served.greet();
    served.hear(Prepare{.epoch = 1, .session = 5, .present = {1, 1}});
    meeting_.ready = true;
    served.hear(connect_to(served));
    ASSERT_THAT(served.wire->all<Ready>(), ElementsAre(Ready{1}));
  }
  static Connect connect_to(const Served& served, std::uint32_t epoch = 1) {
    const std::int32_t rank = served.service.welcome().rank, peer = 1 - rank;
    Connect connect{.epoch = epoch, .introductions = std::vector<Introduction>(2)};
    connect.introductions[static_cast<std::size_t>(peer)].hello = bytes_of(format("{} to {}", peer, rank));
    return connect;
  }
  static Submit asks(RequestId id, std::vector<std::int32_t> prompt, std::int32_t new_tokens_max = 6) {
    Submit submit;
    submit.request.id = id;
    submit.request.prompt = std::move(prompt);
    submit.request.new_tokens_max = new_tokens_max;
    return submit;
  }
  // A worker has dropped its front, after it has told it why.
  static void expect_refused(const Served& served, ErrorCode code, const std::string& why) {
    EXPECT_EQ(served.last_refusal().code, code);
    EXPECT_THAT(served.last_refusal().why, HasSubstr(why));
    EXPECT_TRUE(served.wire->closed);
    EXPECT_EQ(served.service.front(), nullptr);
  }

  void expect_dissolved(Served& served) {
    served.hear(Dissolve{});
    EXPECT_EQ(served.world.threads, 0);
    EXPECT_EQ(meeting_.endpoints, 0);
    EXPECT_FALSE(served.wire->closed);
  }
  void expect_failure_is_told(Served& served) {
    meeting_.broken = true;
    served.world.wait_for_wake();
    const Error error = error_of([&] { served.turns(); });
    EXPECT_EQ(error.code(), ErrorCode::kInternal);
    EXPECT_EQ(error.message(), "the worker has failed: the network card is gone");
    expect_refused(served, ErrorCode::kInternal, error.message());
    EXPECT_EQ(meeting_.endpoints, 0);
  }

  Deployment deployment_ = small_deployment();
  Meeting meeting_;

 private:
  Served& served(std::unique_ptr<Served>& served, std::int32_t rank) {
    if (!served) served = std::make_unique<Served>(deployment_, rank, meeting_);
    return *served;
  }
  std::unique_ptr<Served> attention_, ffn_;
};

// ---- greetings

TEST_F(RoleServiceTest, WhoIsNoFrontOfThisDeploymentIsRefusedWithTheReason) {
  Served& worker = attention();
  const Identity identity = worker.loaded.identity;
  Identity other = identity;
  other.deployment = "other";
  const auto expect = [&](ControlMessage first, ErrorCode code, const std::string& why) {
    const auto wire = std::make_shared<ToldWire>();
    const Status status = worker.greet(wire, std::move(first));
    ASSERT_FALSE(status.is_ok());
    EXPECT_EQ(status.error().code(), code);
    EXPECT_EQ(status.error().message(), why);
    EXPECT_THAT(wire->all<Refusal>(), ElementsAre(Refusal{code, why}));
    EXPECT_THAT(wire->all<Welcome>(), IsEmpty());
    EXPECT_TRUE(wire->closed);
    EXPECT_FALSE(wire->long_messages);
    EXPECT_EQ(worker.service.front(), nullptr);
  };
  expect(Greeting{.identity = other, .rank = 0}, ErrorCode::kInvalidArgument,
         "deployment is test, the other has other");
  expect(Greeting{.identity = identity, .rank = 1}, ErrorCode::kInvalidArgument, "this is rank 0, the front means 1");
  expect(Beat{}, ErrorCode::kInvalidData, "a front begins with a greeting");
  worker.greet();  // and they have not kept the front from it
  EXPECT_NE(worker.service.front(), nullptr);
}

TEST_F(RoleServiceTest, ASecondFrontIsRefusedUntilTheFirstHasLeft) {
  Served& worker = attention();
  worker.greet();
  const Greeting greeting{.identity = worker.loaded.identity, .rank = 0};
  const auto second = std::make_shared<ToldWire>();
  EXPECT_FALSE(worker.greet(second, greeting).is_ok());
  EXPECT_THAT(second->all<Refusal>(), ElementsAre(Refusal{ErrorCode::kUnavailable, "another front is connected"}));
  EXPECT_FALSE(worker.wire->closed);
  worker.wire->end = Status(ErrorCode::kUnavailable, "it closed the connection");
  const auto third = std::make_shared<ToldWire>();
  EXPECT_TRUE(worker.greet(third, greeting).is_ok());
  EXPECT_TRUE(worker.wire->closed);
  EXPECT_THAT(third->all<Welcome>(), SizeIs(1));
}

TEST_F(RoleServiceTest, WelcomeTellsWhoItIsAndWhatItHas) {
  for (Served* worker : {&attention(), &ffn()}) {
    worker->greet();
    const std::vector<Welcome> welcomes = worker->wire->all<Welcome>();
    ASSERT_THAT(welcomes, SizeIs(1));
    const Welcome& welcome = welcomes[0];
    EXPECT_EQ(welcome.identity, worker->loaded.identity);
    EXPECT_EQ(welcome.rank, worker == &ffn() ? 1 : 0);
    EXPECT_EQ(welcome.process, 4711);
    EXPECT_EQ(welcome.weight_bytes, worker->loaded.model->weight_bytes());
    EXPECT_EQ(welcome.kv_tokens, worker == &ffn() ? 0 : 2048);
    EXPECT_EQ(welcome.backend, worker->loaded.backend);
    EXPECT_TRUE(worker->wire->long_messages);
  }
}

// A front lets so many wait for each attention worker; those of a lost one come to the others.
TEST(LoadedWorker, TakesTheRequestsOfAllWhoMayBeLost) {
  Deployment d = small_deployment();
  d.attention.push_back({.rank = 1, .host = "127.0.0.1", .port = 7002, .devices = {}});
  d.ffn[0].rank = 2;
  const EngineConfig of_front = engine_config(d, 0);
  EXPECT_EQ(load_worker(d, 1, nullptr).config.queue_max, 2 * (of_front.queue_max + of_front.sequences_max));
}

TEST_F(RoleServiceTest, WhatCameWithTheGreetingIsDone) {
  Served& worker = attention();
  std::vector<ControlMessage> said{Greeting{.identity = worker.loaded.identity, .rank = 0},
                                   Prepare{.epoch = 3, .session = 5, .present = {1, 1}}};
  ASSERT_TRUE(worker.service.greet(std::make_unique<ToldChannel>(worker.wire), said));
  worker.turns();
  EXPECT_THAT(worker.wire->all<Addresses>(), SizeIs(1));
}

TEST_F(RoleServiceTest, AWorkerWhoseEndpointSticksSaysSoAndIsToEnd) {
  Served& worker = attention();
  worker.greet();
  worker.world.endpoints().stick();
  EXPECT_THROW(worker.service.turn(), StuckWorker);
  ASSERT_THAT(worker.wire->all<Refusal>(), SizeIs(1));
  EXPECT_THAT(worker.wire->all<Refusal>()[0].why, HasSubstr("the endpoint is not made"));
}

// ---- meeting

// It is known to its peers by the seat, to the front by its rank.
TEST_F(RoleServiceTest, AReplicaMeetsInTheSeatOfWhoseShareItHolds) {
  Deployment deployment = small_deployment();
  deployment.ffn.push_back({.rank = 2, .host = "127.0.0.1", .port = 7002, .devices = {}, .replica_of = 1});
  Served replica(deployment, 2, meeting_);
  EXPECT_EQ(replica.service.welcome().rank, 2);
  EXPECT_EQ(replica.service.welcome().weight_bytes, load_worker(deployment, 1, nullptr).model->weight_bytes());
  replica.greet();
  replica.hear(Prepare{.epoch = 4, .session = 5, .present = {1, 1}});
  const std::vector<Addresses> addresses = replica.wire->all<Addresses>();
  ASSERT_THAT(addresses, SizeIs(1));
  ASSERT_THAT(addresses[0].introductions, SizeIs(2));
  EXPECT_EQ(addresses[0].introductions[0].hello, bytes_of("1 to 0"));
  EXPECT_THAT(addresses[0].introductions[1].hello, IsEmpty());
  meeting_.ready = true;
  Connect connect{.epoch = 4, .introductions = std::vector<Introduction>(2)};
  connect.introductions[0].hello = bytes_of("0 to 1");
  replica.hear(connect);
  EXPECT_THAT(replica.wire->all<Ready>(), SizeIs(1));
  EXPECT_THAT(meeting_.hellos, ElementsAre("0 to 1"));
  replica.service.end();
}

TEST_F(RoleServiceTest, MeetsItsPeersThenIsReady) {
  Served& worker = attention();
  worker.greet();
  worker.hear(Prepare{.epoch = 4, .session = 5, .present = {1, 1}});
  const std::vector<Addresses> addresses = worker.wire->all<Addresses>();
  ASSERT_THAT(addresses, SizeIs(1));
  EXPECT_EQ(addresses[0].epoch, 4u);
  ASSERT_THAT(addresses[0].introductions, SizeIs(2));
  EXPECT_THAT(addresses[0].introductions[0].hello, IsEmpty());
  EXPECT_EQ(addresses[0].introductions[1].hello, bytes_of("0 to 1"));
  EXPECT_THAT(addresses[0].introductions[1].key_share, IsEmpty());
  EXPECT_FALSE(worker.service.joins());

  worker.hear(connect_to(worker, 4));
  EXPECT_THAT(meeting_.hellos, ElementsAre("1 to 0"));
  EXPECT_TRUE(worker.service.joins());
  EXPECT_THAT(worker.wire->all<Ready>(), IsEmpty());
  meeting_.ready = true;
  worker.turns();
  EXPECT_THAT(worker.wire->all<Ready>(), ElementsAre(Ready{4}));
  EXPECT_FALSE(worker.service.joins());
}

TEST_F(RoleServiceTest, HasNothingForWhoDoesNotTakePart) {
  Served& worker = attention();
  worker.greet();
  worker.hear(Prepare{.epoch = 1, .session = 5, .present = {1, 0}});
  EXPECT_THAT(worker.wire->all<Addresses>().at(0).introductions.at(1).hello, IsEmpty());
}

TEST_F(RoleServiceTest, PeersOfAnotherEpochAreRefusedAndTheFrontDropped) {
  Served& worker = attention();
  worker.greet();
  worker.hear(Prepare{.epoch = 4, .session = 5, .present = {1, 1}});
  worker.hear(connect_to(worker, 3));
  expect_refused(worker, ErrorCode::kInvalidData, "peers of epoch 3 come, 4 is prepared");
  EXPECT_FALSE(worker.service.joins());
  EXPECT_EQ(meeting_.endpoints, 0);
  EXPECT_THAT(meeting_.hellos, IsEmpty());
  EXPECT_THAT(worker.said, ElementsAre(HasSubstr("peers of epoch 3")));
}

TEST_F(RoleServiceTest, WhatAFrontGetsWrongDropsIt) {
  const auto expect = [&](const std::vector<ControlMessage>& messages, ErrorCode code, const std::string& why) {
    Served& worker = attention();
    worker.wire = std::make_shared<ToldWire>();
    worker.greet();
    for (const ControlMessage& message : messages) worker.hear(message);
    expect_refused(worker, code, why);
    EXPECT_EQ(meeting_.endpoints, 0) << why;
  };
  const Prepare prepare{.epoch = 1, .session = 5, .present = {1, 1}};
  const Connect good = connect_to(attention());
  Connect to_another = good;
  to_another.introductions[1].hello = bytes_of("1 to 7");
  Connect too_many = good;
  too_many.introductions.resize(3);
  expect({Prepare{.epoch = 1, .session = 5, .present = {1, 1, 1}}}, ErrorCode::kInvalidData,
         "3 workers are prepared for, this deployment has 2");
  expect({good}, ErrorCode::kInvalidData, "peers of epoch 1 come");
  expect({prepare, good, good}, ErrorCode::kInvalidData, "peers of epoch 1 come");
  expect({prepare, to_another}, ErrorCode::kInvalidArgument, "a hello for another");
  expect({prepare, too_many}, ErrorCode::kInvalidData, "3 peers are introduced, this deployment has 2");
  expect({Welcome{}}, ErrorCode::kInvalidData, "this is no message from a front to such a worker");
}

TEST_F(RoleServiceTest, SharesOfKeysAreOfTheirLengthAndOfWhoMeets) {
  deployment_.link.encrypt = true;
  deployment_.trust.secret_file = "secret";
  Served& worker = attention();
  const auto hear = [&](const Connect& connect) {
    worker.wire = std::make_shared<ToldWire>();
    worker.greet();
    worker.hear(Prepare{.epoch = 1, .session = 5, .present = {1, 1}});
    worker.hear(connect);
  };
  Connect connect = connect_to(worker);
  hear(connect);
  expect_refused(worker, ErrorCode::kInvalidData, "a peer's share of the key has 0 bytes, 32 are expected");
  connect.introductions[1].key_share.resize(32);
  connect.introductions[0].key_share.resize(64);  // of nobody, and longer than there is room for
  hear(connect);
  expect_refused(worker, ErrorCode::kInvalidData, "a peer's share of the key has 64 bytes, 0 are expected");
  connect.introductions[0].key_share.clear();
  meeting_.ready = true;
  hear(connect);
  EXPECT_THAT(worker.wire->all<Ready>(), ElementsAre(Ready{1}));
  const Introduction to_peer = worker.wire->all<Addresses>().at(0).introductions.at(1);
  EXPECT_THAT(to_peer.key_share, SizeIs(32));
}

TEST_F(RoleServiceTest, WhatIsDissolvedNeverGetsReady) {
  Served& worker = attention();
  worker.greet();
  worker.hear(Prepare{.epoch = 1, .session = 5, .present = {1, 1}});
  worker.hear(connect_to(worker));
  worker.hear(Dissolve{});
  EXPECT_FALSE(worker.service.joins());
  EXPECT_EQ(meeting_.endpoints, 0);
  meeting_.ready = true;
  worker.turns();
  EXPECT_THAT(worker.wire->all<Ready>(), IsEmpty());
  EXPECT_FALSE(worker.wire->closed);
}

TEST_F(RoleServiceTest, PrepareEndsWhatRan) {
  Served& worker = attention();
  run_alone(worker);
  EXPECT_EQ(meeting_.endpoints, 1);
  worker.hear(Prepare{.epoch = 2, .session = 6, .present = {1, 1}});
  EXPECT_EQ(worker.world.threads, 0);
  EXPECT_EQ(meeting_.endpoints, 1);  // another one
  worker.hear(connect_to(worker, 2));
  EXPECT_THAT(worker.wire->all<Ready>(), ElementsAre(Ready{1}, Ready{2}));
}

TEST_F(RoleServiceTest, DissolveEndsWhatRan) {
  run_alone(attention());
  expect_dissolved(attention());
}

TEST_F(RoleServiceTest, DissolveEndsAnFfnWorker) {
  run_alone(ffn());
  expect_dissolved(ffn());
}

// ---- times

TEST_F(RoleServiceTest, AFrontThatIsSilentIsDropped) {
  Served& worker = attention();
  run_alone(worker);
  for (int i = 0; i < 3; ++i) {
    worker.world.pass(4'000);
    worker.hear(Beat{});
  }
  worker.world.pass(5'000);
  worker.turns();
  EXPECT_FALSE(worker.wire->closed);
  worker.world.pass(1);
  worker.turns();
  EXPECT_TRUE(worker.wire->closed);
  EXPECT_EQ(worker.service.front(), nullptr);
  EXPECT_EQ(worker.world.threads, 0);
  EXPECT_EQ(meeting_.endpoints, 0);
  EXPECT_THAT(worker.said, ElementsAre(HasSubstr("nothing was heard of it for 5000 ms (link.lost_after_ms)")));
  worker.wire = std::make_shared<ToldWire>();
  worker.greet();  // the next one
}

TEST_F(RoleServiceTest, AFrontWhoseWordWaitsIsNotSilent) {
  Served& worker = attention();
  worker.greet();
  worker.world.pass(6'000);  // that this process was held up
  worker.hear(Beat{});
  EXPECT_FALSE(worker.wire->closed);
}

TEST_F(RoleServiceTest, ReportsEveryHeartbeat) {
  Served& worker = attention();
  run_alone(worker);
  const auto reports = [&] { return worker.wire->all<Report>().size(); };
  EXPECT_EQ(reports(), 0u);
  worker.world.pass(499);
  worker.turns();
  EXPECT_EQ(reports(), 0u);
  worker.world.pass(1);
  worker.turns();
  EXPECT_EQ(reports(), 1u);
  worker.world.pass(500);
  worker.turns();
  ASSERT_EQ(reports(), 2u);
}

// ---- requests

TEST_F(RoleServiceTest, AnFfnWorkerTakesNoRequests) {
  for (const ControlMessage& message : {ControlMessage(asks(1, {1, 2})), ControlMessage(Rows{})}) {
    Served& worker = ffn();
    worker.wire = std::make_shared<ToldWire>();
    meeting_.ready = false;
    run_alone(worker);
    worker.hear(message);
    expect_refused(worker, ErrorCode::kInvalidData, "this is no message from a front to such a worker");
    EXPECT_EQ(worker.world.threads, 0);
  }
}

TEST_F(RoleServiceTest, WhatTheModelCannotDoEndsAsNews) {
  Served& worker = attention();
  run_alone(worker);
  Submit hot = asks(7, {1, 2});
  hot.request.sampling.temperature = 1'000;
  worker.hear(hot);
  Submit constrained = asks(8, {1, 2});
  constrained.constraint = ConstraintRecipe{};
  worker.world.wait_for_wake();
  worker.hear(constrained);
  worker.world.wait_for_wake();  // nobody here can make it
  worker.turns();
  const std::vector<News> news = worker.wire->all<News>();
  ASSERT_THAT(news, SizeIs(2));
  for (const News& one : news) {
    EXPECT_EQ(one.epoch, 1u);
    EXPECT_EQ(one.event.finish, FinishReason::kError);
  }
  EXPECT_EQ(news[0].event.id, 7u);
  EXPECT_THAT(news[0].event.status.error().message(), HasSubstr("temperature"));
  EXPECT_EQ(news[1].event.id, 8u);
  EXPECT_EQ(news[1].event.status.error().code(), ErrorCode::kUnsupported);
  EXPECT_FALSE(worker.wire->closed);
}

TEST_F(RoleServiceTest, ARequestThatComesAfterTheEndIsLeftToTheFront) {
  Served& worker = attention();
  run_alone(worker);
  worker.hear(Dissolve{});
  worker.hear(asks(1, {1, 2}));
  worker.hear(Cancel{1});
  EXPECT_THAT(worker.wire->all<News>(), IsEmpty());
  EXPECT_FALSE(worker.wire->closed);
}

// Both workers, whose endpoints reach each other; the test carries words between them.
class TwoRoleServicesTest : public RoleServiceTest {
 protected:
  void meet(std::uint32_t epoch) {
    for (Served* worker : {&attention(), &ffn()}) {
      if (!worker->service.front()) worker->greet();
      worker->hear(Prepare{.epoch = epoch, .session = epoch, .present = {1, 1}});
    }
    meeting_.ready = true;
    for (Served* worker : {&attention(), &ffn()}) {
      Connect connect{.epoch = epoch, .introductions = std::vector<Introduction>(2)};
      const std::size_t rank = worker == &ffn() ? 1 : 0, peer = 1 - rank;
      Served& from = peer == 1 ? ffn() : attention();
      connect.introductions[peer] = from.wire->all<Addresses>().back().introductions[rank];
      worker->hear(connect);
      ASSERT_EQ(worker->wire->all<Ready>().back(), Ready{epoch});
    }
  }
  std::vector<std::int32_t> answer_to(const Submit& submit) {
    std::size_t heard = attention().wire->all<News>().size();
    attention().hear(submit);
    std::vector<std::int32_t> tokens;
    for (;;) {
      attention().turns();
      const std::vector<News> news = attention().wire->all<News>();
      for (; heard < news.size(); ++heard) {
        for (const SampledToken& token : news[heard].event.tokens) tokens.push_back(token.id);
        if (news[heard].event.finish == FinishReason::kNone) continue;
        EXPECT_EQ(news[heard].event.finish, FinishReason::kLength);
        return tokens;
      }
      attention().world.wait_for_wake();
      if (HasFailure()) return tokens;
    }
  }
  // Of one process alone.
  std::vector<std::int32_t> expected(const Submit& submit) const {
    EngineConfig config = engine_config(deployment_, 0);
    config.layout = {};
    const std::unique_ptr<Engine> engine = Engine::start(*Checkpoint::open(deployment_.model), config);
    const auto events = std::make_shared<EventStream>();
    EXPECT_TRUE(engine->submit(submit.request, events));
    std::vector<std::int32_t> tokens;
    while (const std::optional<RequestEvent> event = events->pop(kPatienceMs * kMillisecond)) {
      for (const SampledToken& token : event->tokens) tokens.push_back(token.id);
      if (event->finish != FinishReason::kNone) break;
    }
    return tokens;
  }
};

TEST_F(TwoRoleServicesTest, AnswerAsOneProcessDoesAndGoOnAfterWhatWasTold) {
  meet(1);
  const Submit submit = asks(1, {5, 6, 7, 8});
  const std::vector<std::int32_t> all = expected(submit);
  ASSERT_THAT(all, SizeIs(6));
  EXPECT_EQ(answer_to(submit), all);
  const Report report = attention().service.report();
  EXPECT_GT(report.steps, 0);
  EXPECT_GT(report.load.kv.blocks, 0);
  EXPECT_GT(ffn().service.report().rows, 0);

  meet(2);  // with what was told before they parted
  EXPECT_EQ(attention().service.report().steps, 0);
  Submit again = submit;
  again.request.answer = {all.begin(), all.begin() + 2};
  EXPECT_EQ(answer_to(again), std::vector<std::int32_t>(all.begin() + 2, all.end()));
  EXPECT_EQ(attention().wire->all<News>().back().epoch, 2u);
}

std::vector<std::int32_t> long_prompt() {
  std::vector<std::int32_t> prompt;
  for (std::int32_t i = 0; i < 140; ++i) prompt.push_back((11 + 37 * i) % 200);
  return prompt;
}

// What left with a request is what another worker goes on with; here the same one, which is to know nothing of it.
TEST_F(TwoRoleServicesTest, ARequestThatIsGivenUpGoesOnElsewhereWithItsKv) {
  meet(1);
  Submit submit = asks(1, long_prompt(), 90);
  submit.request.cache_salt = 7;
  const std::vector<std::int32_t> all = expected(submit);
  const Served& worker = attention();
  attention().hear(submit);
  const auto hear_until = [&](const auto& done) {
    while (!done() && !HasFailure()) {
      attention().world.wait_for_wake();
      attention().turns();
    }
  };
  hear_until([&] { return worker.wire->all<News>().size() >= 3; });
  attention().hear(Yield{1});
  attention().hear(Yield{9});  // that was never here
  hear_until([&] { return worker.wire->all<Yielded>().size() == 2; });
  EXPECT_THAT(worker.wire->all<Yielded>(), ElementsAre(Yielded{1, 1}, Yielded{1, 9}));
  const std::vector<Page> pages = worker.wire->all<Page>();
  ASSERT_GE(pages.size(), 2u);
  std::vector<std::int32_t> told;
  for (const News& news : worker.wire->all<News>()) {
    EXPECT_EQ(news.event.finish, FinishReason::kNone);
    for (const SampledToken& token : news.event.tokens) told.push_back(token.id);
  }
  ASSERT_LT(told.size(), all.size());
  EXPECT_EQ(told, std::vector<std::int32_t>(all.begin(), all.begin() + std::ssize(told)));
  EXPECT_EQ(std::get<Page>(worker.wire->sent[worker.wire->sent.size() - pages.size() - 2]), pages[0]);
  EXPECT_EQ(pages.size(), (140 + told.size() - 1) / 64);

  submit.request.id = 2;
  submit.request.cache_salt = 8;  // of which the cache knows nothing
  submit.request.answer = told;
  for (std::uint32_t index = 0; index < pages.size(); ++index) {  // in two pieces each
    const auto middle = pages[index].bytes.begin() + 1000, end = pages[index].bytes.end();
    attention().hear(Page{1, 2, index, false, {pages[index].bytes.begin(), middle}});
    attention().hear(Page{1, 2, index, true, {middle, end}});
  }
  EXPECT_EQ(answer_to(submit), std::vector<std::int32_t>(all.begin() + std::ssize(told), all.end()));
  EXPECT_EQ(worker.wire->all<News>().back().event.cached_tokens, std::min<std::int64_t>(140, 64 * std::ssize(pages)));
}

TEST_F(TwoRoleServicesTest, KvThatIsNoneIsComputed) {
  meet(1);
  const Submit submit = asks(1, long_prompt());
  attention().hear(Page{1, 1, 0, true, bytes_of("no page")});
  EXPECT_EQ(answer_to(submit), expected(submit));
  EXPECT_EQ(attention().wire->all<News>().back().event.cached_tokens, 0);
}

TEST_F(RoleServiceTest, KvComesInOrder) {
  Served& worker = attention();
  run_alone(worker);
  worker.hear(Page{1, 5, 0, true, bytes_of("a")});
  worker.hear(Page{1, 5, 2, true, bytes_of("b")});
  expect_refused(worker, ErrorCode::kInvalidData, "a piece of page 2 of request 5 comes, page 1 is next");
}

TEST_F(RoleServiceTest, KvOfRequestsThatNeverComeIsLimited) {
  Served& worker = attention();
  run_alone(worker);
  for (RequestId id = 1; id <= 4096; ++id) worker.hear(Page{1, id, 0, true, bytes_of("a")});
  EXPECT_FALSE(worker.wire->closed);
  worker.hear(Cancel{7});
  worker.hear(Page{1, 5000, 0, true, bytes_of("a")});  // in the place of the one that was cancelled
  EXPECT_FALSE(worker.wire->closed);
  worker.hear(Page{1, 5001, 0, true, bytes_of("a")});
  expect_refused(worker, ErrorCode::kInvalidData, "KV of more than 4096 requests came ahead of them");
}

TEST_F(TwoRoleServicesTest, WithSealsTheySayTheSame) {
  const Submit submit = asks(1, {5, 6, 7, 8});
  const std::vector<std::int32_t> all = expected(submit);
  deployment_.link.encrypt = true;
  deployment_.trust.secret_file = "secret";
  meet(1);
  EXPECT_EQ(answer_to(submit), all);
}

// ---- workers that fail

TEST_F(RoleServiceTest, AnAttentionWorkerThatFailsTellsTheFrontAndEnds) {
  run_alone(attention());
  expect_failure_is_told(attention());
}

TEST_F(RoleServiceTest, AnFfnWorkerThatFailsTellsTheFrontAndEnds) {
  run_alone(ffn());
  expect_failure_is_told(ffn());
}

TEST_F(RoleServiceTest, AWorkerThatCannotBeMadeTellsTheFrontAndEnds) {
  meeting_.takes_memory = false;
  Served& worker = attention();
  worker.greet();
  worker.hear(Prepare{.epoch = 1, .session = 5, .present = {1, 1}});
  worker.hear(connect_to(worker));
  meeting_.ready = true;
  const Error error = error_of([&] { worker.turns(); });
  EXPECT_EQ(error.code(), ErrorCode::kOutOfResources);
  expect_refused(worker, ErrorCode::kOutOfResources, "memory cannot be pinned");
}

}  // namespace
}  // namespace tandem
