// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "tests/roles/deployment_run.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <utility>

#include "base/format.h"
#include "roles/deployment_engine.h"
#include "trust/certificate_maker.h"
#include "trust/private_file.h"
#include "trust/secret.h"

namespace tandem {

namespace {

constexpr Nanoseconds kPatience = 60 * kSecond;

}  // namespace

Deployment small_deployment(const std::string& model, std::int32_t attention, std::int32_t ffn) {
  Deployment d{.name = "test", .model = "tests/goldens/" + model};
  d.engine = {.device = "cpu",
              .kv_dtype = "f32",
              .micro_batches = 2,
              .rows_per_micro_batch_max = 32,
              .sequences_max = 8,
              .context_tokens_max = 256,
              .kv_tokens = 2048};
  d.split.experts = ffn;
  d.link.heartbeat_ms = 100;
  d.link.repair_ms_max = 30'000;
  d.front.port = free_port();
  for (std::int32_t rank = 0; rank < attention + ffn; ++rank)
    (rank < attention ? d.attention : d.ffn)
        .push_back({.rank = rank, .host = "127.0.0.1", .port = free_port(), .devices = {}});
  return d;
}

void give_trust(Deployment& d, const std::string& kind, const std::string& folder) {
  const auto write = [&](const char* name, const std::string& text) {
    const std::string path = folder + "/" + name;
    write_private_file(path, text);
    return path;
  };
  if (kind == "secret") d.trust.secret_file = write("secret", make_secret_text());
  if (kind != "certificates") return;
  const Pem authority = make_authority("test", 1), own = make_certificate(authority, "127.0.0.1", 1);
  d.trust = {.certificate_file = write("own.pem", own.certificate),
             .key_file = write("own.key", own.key),
             .authority_file = write("authority.pem", authority.certificate)};
}

void expect_same_rows(const Recorded& expected, const LogitRows& rows, RequestId id) {
  std::size_t compared = 0;
  for (const auto& [position, row] : expected.logits) {
    const auto found = rows.find({id, position});
    if (found == rows.end()) continue;
    ASSERT_EQ(found->second.size(), row.size());
    ASSERT_EQ(std::memcmp(found->second.data(), row.data(), row.size() * sizeof(float)), 0) << "position " << position;
    ++compared;
  }
  EXPECT_EQ(compared, expected.logits.size()) << "rows of request " << id;
}

DeploymentRun::DeploymentRun(Deployment deployment)
    : deployment_(std::move(deployment)), file_(folder_.path() + "/deployment.toml") {
  std::ofstream(file_) << to_toml(deployment_);
  const auto workers = static_cast<std::int32_t>(deployment_.attention.size() + deployment_.ffn.size());
  for (std::int32_t rank = 0; rank < workers; ++rank) start(rank);
}

DeploymentRun::~DeploymentRun() {
  engine_.reset();
  hear(processes_.stop(10'000));
  if (!testing::Test::HasFailure()) return;
  for (const auto& [name, said] : said_) std::fprintf(stderr, "%s said: %s\n", name.c_str(), said.c_str());
}

Identity DeploymentRun::identity() const {
  return identity_of(deployment_, *Checkpoint::open(deployment_.model));
}

void DeploymentRun::connect() {
  std::unique_ptr<Front> front = Front::connect(deployment_, identity(), {.patience = kPatience});
  front_ = front.get();
  const auto checkpoint = Checkpoint::open(deployment_.model);
  EngineConfig config = engine_config(deployment_, 0);
  config.kv_tokens = front->kv_tokens();
  config.vision = true;
  engine_ = Engine::over(std::move(front), resolve_limits(config, read_config(*checkpoint)), *checkpoint);
}

std::string DeploymentRun::logit_file(std::int32_t rank) const {
  return format("{}/logits-{}", folder_.path(), rank);
}

void DeploymentRun::start(std::int32_t rank) {
  const bool attention = rank < static_cast<std::int32_t>(deployment_.attention.size());
  processes_.start(worker_name(deployment_, rank),
                   {ROLE_PROGRAM, attention ? "attention" : "ffn", file_, format("{}", rank), logit_file(rank)});
}

void DeploymentRun::signal(std::int32_t rank, int signal) {
  const pid_t process = processes_.process(worker_name(deployment_, rank));
  ASSERT_GT(process, 0);
  kill(process, signal);
}

void DeploymentRun::kill_and_reap(std::int32_t rank) {
  signal(rank, SIGKILL);
  const std::string name = worker_name(deployment_, rank);
  while (processes_.process(name) != 0) hear(processes_.wait(-1, 20));
}

void DeploymentRun::let_endpoints_stick(std::int32_t rank, bool stick) {
  const std::string file = logit_file(rank) + ".stuck";
  if (stick)
    std::ofstream(file).flush();
  else
    std::filesystem::remove(file);
}

void DeploymentRun::limit_endpoints(std::int32_t rank, std::int32_t ms) {
  std::ofstream(logit_file(rank) + ".limit") << ms;
}

void DeploymentRun::hear(const std::vector<Processes::Event>& events) {
  for (const Processes::Event& event : events) said_[event.name] += event.line + "\n";
}

void DeploymentRun::wait_for_line(std::int32_t rank, const std::string& text) {
  const std::string name = worker_name(deployment_, rank);
  const RealClock clock;
  const Nanoseconds end = clock.now() + kPatience;
  while (said_[name].find(text) == std::string::npos) {
    ASSERT_LT(clock.now(), end) << name << " said: " << said_[name];
    hear(processes_.wait(-1, 50));
  }
}

void DeploymentRun::wait_for_epoch(std::uint32_t epoch) {
  const RealClock clock;
  const Nanoseconds end = clock.now() + kPatience;
  while (front().epoch() < epoch) {
    ASSERT_LT(clock.now(), end) << "epoch is " << front().epoch();
    hear(processes_.wait(-1, 50));
  }
}

RequestId DeploymentRun::submit(Request request, std::vector<PlacedPicture> pictures) {
  request.id = engine_->next_id();
  const RequestId id = request.id;
  answers_[id] = {};
  const Status submitted = engine_->submit(std::move(request), std::move(pictures), events_);
  EXPECT_TRUE(submitted);
  running_ += submitted.is_ok();
  return id;
}

std::vector<RequestId> DeploymentRun::submit_all(const std::vector<Request>& requests) {
  std::vector<RequestId> ids;
  ids.reserve(requests.size());
  for (const Request& request : requests) ids.push_back(submit(request));
  return ids;
}

bool DeploymentRun::hear() {
  std::optional<RequestEvent> event = events_->pop(kPatience);
  if (!event) {
    ADD_FAILURE() << running_ << " requests do not end";
    running_ = 0;
    return false;
  }
  Answer& answer = answers_.at(event->id);
  EXPECT_EQ(answer.end.finish, FinishReason::kNone) << "news after the end";
  for (const SampledToken& token : event->tokens) answer.tokens.push_back(token.id);
  running_ -= event->finish != FinishReason::kNone;
  answer.end = std::move(*event);
  return true;
}

void DeploymentRun::wait_for_tokens(RequestId id, std::size_t count) {
  while (running_ > 0 && answers_.at(id).end.finish == FinishReason::kNone && answers_.at(id).tokens.size() < count &&
         hear()) {
  }
}

void DeploymentRun::wait() {
  while (running_ > 0 && hear()) {
  }
}

LogitRows DeploymentRun::logits() const {
  LogitRows rows;
  for (const WorkerPlace& worker : deployment_.attention) read_logits(logit_file(worker.rank), rows);
  return rows;
}

}  // namespace tandem
