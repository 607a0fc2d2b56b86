// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A deployment of real processes on free ports of this machine, with an engine over it in this one.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "deploy/deployment.h"
#include "engine/engine.h"
#include "roles/front.h"
#include "roles/processes.h"
#include "tests/checkpoint/temporary_folder.h"
#include "tests/engine/recording_engine.h"
#include "tests/roles/free_port.h"
#include "tests/roles/logit_file.h"

namespace tandem {

// Small sizes for the checkpoints of tests/goldens, as small_engine() has.
Deployment small_deployment(const std::string& model, std::int32_t attention, std::int32_t ffn);

// With a new secret, or certificates of a new authority, in files under the folder: "secret", "certificates"; "": none.
void give_trust(Deployment& deployment, const std::string& kind, const std::string& folder);

struct Answer {
  std::vector<std::int32_t> tokens;
  RequestEvent end;
  bool operator==(const Answer& other) const { return tokens == other.tokens; }
};

// Every row that was recorded is among rows, bit for bit.
void expect_same_rows(const Recorded& expected, const LogitRows& rows, RequestId id);

class DeploymentRun {
 public:
  // Starts all workers. Nobody is connected yet. What they said is printed at the end of a test that failed.
  explicit DeploymentRun(Deployment deployment);
  ~DeploymentRun();

  const Deployment& deployment() const { return deployment_; }
  Identity identity() const;
  // Makes the engine; the front's lines are kept.
  void connect();
  Engine& engine() { return *engine_; }
  Front& front() { return *front_; }
  // As if the front had been killed: its workers hear no word of farewell but the end of the connection.
  void disconnect() { engine_.reset(); }

  void start(std::int32_t rank);
  void signal(std::int32_t rank, int signal);
  void kill_and_reap(std::int32_t rank);
  // Whether the worker's next endpoints are stuck in being made (see role_program.cpp).
  void let_endpoints_stick(std::int32_t rank, bool stick);
  // How long making one may take; before start.
  void limit_endpoints(std::int32_t rank, std::int32_t ms);
  // Waits until the worker has said a line that contains text.
  void wait_for_line(std::int32_t rank, const std::string& text);

  // Waits until the deployment has met again for the epoch.
  void wait_for_epoch(std::uint32_t epoch);

  RequestId submit(Request request, std::vector<PlacedPicture> pictures = {});
  std::vector<RequestId> submit_all(const std::vector<Request>& requests);
  // Waits until the request has so many tokens, or has ended.
  void wait_for_tokens(RequestId id, std::size_t count);
  // Waits for everything submitted. The test fails when nothing happens for a minute.
  void wait();
  const Answer& answer(RequestId id) const { return answers_.at(id); }
  // All rows that attention workers have computed so far.
  LogitRows logits() const;

 private:
  void hear(const std::vector<Processes::Event>& events);

  std::string logit_file(std::int32_t rank) const;
  bool hear();

  Deployment deployment_;
  TemporaryFolder folder_;
  std::string file_;
  Processes processes_;
  std::map<std::string, std::string> said_;
  Front* front_ = nullptr;
  std::unique_ptr<Engine> engine_;
  std::shared_ptr<EventStream> events_ = std::make_shared<EventStream>();
  std::map<RequestId, Answer> answers_;
  std::size_t running_ = 0;
};

}  // namespace tandem
