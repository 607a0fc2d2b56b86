// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// tandem up, with the processes that it starts.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <cstdlib>

#include "base/format.h"
#include "cli/command.h"
#include "deploy/deployment.h"
#include "roles/processes.h"
#include "tests/checkpoint/temporary_folder.h"
#include "tests/cli/program.h"
#include "tests/roles/free_port.h"
#include "tests/serve/http_client.h"

namespace tandem {
namespace {

using testing::HasSubstr;

class UpTest : public testing::Test {
 protected:
  UpTest() {
    Deployment d{.name = "test", .model = "tests/goldens/qwen3_moe"};
    d.engine = {.device = "cpu", .kv_dtype = "f32", .micro_batches = 2, .sequences_max = 8, .context_tokens_max = 256};
    d.engine.kv_tokens = 2048;
    d.front.port = free_port();
    d.attention = {{.rank = 0, .host = "127.0.0.1", .port = free_port(), .devices = {}}};
    d.ffn = {{.rank = 1, .host = "127.0.0.1", .port = free_port(), .devices = {}}};
    deployment_ = d;
    file_ = folder_.write("fleet.toml", to_toml(d));
  }

  void start(const std::vector<std::string>& options = {}) {
    std::vector<std::string> command{TANDEM_PROGRAM, "up", file_};
    command.insert(command.end(), options.begin(), options.end());
    up_.start("up", command);
  }
  // Until a line contains text, or nothing runs any more. Returns that line.
  std::string wait_for(const std::string& text) {
    while (up_.running() > 0) {
      for (const Processes::Event& event : up_.wait(-1, 1000)) {
        said_ += event.line + "\n";
        if (event.ended) failed_ = event.failed;
      }
      if (const std::size_t at = said_.find(text, seen_); at != std::string::npos) {
        seen_ = at + text.size();
        const std::size_t begin = said_.rfind('\n', at) + 1;
        return said_.substr(begin, said_.find('\n', at) - begin);
      }
    }
    return said_.find(text) == std::string::npos ? "" : text;
  }
  bool stop() {
    for (const Processes::Event& event : up_.stop(30'000)) {
      said_ += event.line + "\n";
      if (event.ended) failed_ = event.failed;
    }
    return !failed_;
  }

  TemporaryFolder folder_;
  Deployment deployment_;
  std::string file_;
  Processes up_;
  std::string said_;
  std::size_t seen_ = 0;
  bool failed_ = false;
};

TEST_F(UpTest, ServesAndStopsCleanly) {
  start();
  ASSERT_NE(wait_for("serving"), "") << said_;
  EXPECT_THAT(said_, HasSubstr("up    | ready     all 2 workers"));
  const HttpAnswer answer =
      post(deployment_.front.port, "/v1/completions", {{"prompt", "Once upon"}, {"max_tokens", 4}, {"temperature", 0}});
  EXPECT_EQ(answer.status, 200) << answer.body;
  EXPECT_TRUE(stop()) << said_;
  for (const char* name : {"A0", "F0", "front"})
    EXPECT_THAT(said_, testing::ContainsRegex(format("ended     {}: process [0-9]+ has ended with status 0", name)));
}

TEST_F(UpTest, ServesWithinSealedLinks) {
  EXPECT_EQ(run_program({"keys", "secret", folder_.path() + "/secret"}).status, 0);
  deployment_.trust.secret_file = folder_.path() + "/secret";
  folder_.write("fleet.toml", to_toml(deployment_));
  start({"--encrypt"});
  ASSERT_NE(wait_for("serving"), "") << said_;
  const HttpAnswer answer =
      post(deployment_.front.port, "/v1/completions", {{"prompt", "Once upon"}, {"max_tokens", 4}, {"temperature", 0}});
  EXPECT_EQ(answer.status, 200) << answer.body;
  EXPECT_THAT(run_program({"generate", "--deployment", file_, "a"}).err,
              HasSubstr("what passes between workers is sealed, the other has open"));
  EXPECT_TRUE(stop()) << said_;
}

TEST_F(UpTest, TakesOrders) {
  deployment_.front.control_port = deployment_.front.port + 4;
  deployment_.attention.push_back({.rank = 1, .host = "127.0.0.1", .port = deployment_.front.port + 3, .devices = {}});
  deployment_.ffn[0].rank = 2;
  folder_.write("fleet.toml", to_toml(deployment_));
  EXPECT_THAT(run_program({"ctl", "status", file_}).err, HasSubstr("is not there: Connection refused"));
  start();
  ASSERT_NE(wait_for("serving"), "") << said_;
  EXPECT_THAT(run_program({"ctl", "status", file_}).out, HasSubstr("2A1F, links open: running, epoch 1"));
  const ProgramResult drained = run_program({"ctl", "drain", file_, "0"});
  EXPECT_EQ(drained.status, 0) << drained.err;
  EXPECT_THAT(drained.out, testing::ContainsRegex("0 +A0 +127.0.0.1:[0-9]+ +drained"));
  const HttpAnswer answer =
      post(deployment_.front.port, "/v1/completions", {{"prompt", "Once upon"}, {"max_tokens", 4}, {"temperature", 0}});
  EXPECT_EQ(answer.status, 200) << answer.body;
  EXPECT_THAT(run_program({"ctl", "drain", file_, "2"}).err, HasSubstr("no replica of it is here"));
  EXPECT_THAT(run_program({"ctl", "add", file_, "0", "--json"}).out, HasSubstr("\"epoch\":3"));
  EXPECT_TRUE(stop()) << said_;
}

TEST_F(UpTest, AWorkerThatIsKilledIsNamedAndTheOthersEnd) {
  start();
  const std::string joined = wait_for("joined    F0 (rank 1");
  ASSERT_NE(joined, "") << said_;
  kill(std::atoi(joined.substr(joined.find("process ") + 8).c_str()), SIGKILL);
  wait_for("nothing of the kind");
  EXPECT_TRUE(failed_);
  EXPECT_THAT(said_, testing::ContainsRegex("ended     F0: process [0-9]+ was ended by signal 9"));
  EXPECT_THAT(said_, testing::ContainsRegex("ended     A0: process [0-9]+ has ended with status 0"));
}

TEST_F(UpTest, OtherCommandsAreFrontsOfItsWorkers) {
  start({"--workers-only", "--restart"});
  ASSERT_NE(wait_for("ready     all 2 workers"), "") << said_;
  const std::vector<std::string> question{"generate", "Once upon a time", "--text", "--max-tokens", "8", "-q"};
  std::vector<std::string> local = question, remote = question;
  local.insert(local.end(), {"--model", deployment_.model, "--layout", "local", "--kv-dtype", "f32"});
  remote.insert(remote.end(), {"--deployment", file_});
  const ProgramResult expected = run_program(local);
  EXPECT_EQ(expected.status, 0) << expected.err;
  EXPECT_EQ(run_program(remote).out, expected.out);
  const std::string joined = run_program({"generate", "--deployment", file_, "a", "--max-tokens", "1"}).err;
  const std::size_t at = joined.find("process ", joined.find("joined    F0"));
  ASSERT_NE(at, std::string::npos) << joined;
  kill(std::atoi(joined.substr(at + 8).c_str()), SIGKILL);
  ASSERT_NE(wait_for("starting  F0 again"), "") << said_;
  EXPECT_EQ(run_program(remote).out, expected.out);
  EXPECT_TRUE(stop()) << said_;
}

TEST_F(UpTest, WhatMakesNoSenseIsSaid) {
  EXPECT_THAT(run_program({"ffn", file_, "--rank", "0"}).err, HasSubstr("rank is 0, FFN workers of deployment test"));
  EXPECT_THAT(run_program({"generate", "--deployment", file_, "--layout", "1A1F", "a"}).err, HasSubstr("--layout"));
  EXPECT_THAT(run_program({"generate", "--deployment", file_, "--gpu-f", "1", "a"}).err,
              HasSubstr("the file says which devices workers have"));
  EXPECT_THAT(run_program({"generate", "--deployment", file_, "--selfcheck"}).err, HasSubstr("--selfcheck"));
  EXPECT_THAT(run_program({"up", file_, "--encrypt"}).err, HasSubstr("needs trust.secret_file or certificates"));
  deployment_.attention[0].host = "10.0.0.1";
  deployment_.trust.secret_file = "/no/such/secret";
  folder_.write("fleet.toml", to_toml(deployment_));
  EXPECT_THAT(run_program({"generate", "--deployment", file_, "a"}).err, HasSubstr("/no/such/secret"));
}

}  // namespace
}  // namespace tandem
