// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What the page of metrics tells of a deployment of real processes.
#include <gmock/gmock.h>

#include <chrono>
#include <regex>
#include <thread>

#include "base/format.h"
#include "serve/metrics.h"
#include "tests/engine/recording_engine.h"
#include "tests/roles/deployment_run.h"

namespace tandem {
namespace {

class DeploymentMetrics : public testing::Test {
 protected:
  // Of a line of the page; -1: there is none.
  double value(const std::string& name, const std::string& role = "") {
    const std::string page = metrics_.page(run_.engine());
    const std::string label = role.empty() ? "" : format(R"(\{{role="{}"\}})", role);
    std::smatch found;
    if (!std::regex_search(page, found, std::regex("\n" + name + label + " ([-+0-9.e]+)\n"))) return -1;
    return std::stod(found[1]);
  }

  // Until the workers run together once more, so many of them of attention.
  void wait_for_formation(int attention) {
    for (int i = 0; i < 6000; ++i) {
      const double met = value("tandem:deployment_formations_total");
      if (met > met_ && value("tandem:deployment_workers_present", "attention") == attention) {
        met_ = met;
        return;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    FAIL() << metrics_.page(run_.engine());
  }

  DeploymentRun run_{small_deployment("qwen3_moe", 2, 1)};
  Metrics metrics_;
  double met_ = 0;
};

TEST_F(DeploymentMetrics, TheEpochRisesWhenAWorkerIsLostAndWhenItComesBack) {
  run_.connect();
  wait_for_formation(2);
  const double first = value("tandem:deployment_epoch");
  EXPECT_GE(first, 1);
  run_.kill_and_reap(1);
  wait_for_formation(1);
  const double second = value("tandem:deployment_epoch");
  EXPECT_GT(second, first);
  run_.start(1);
  wait_for_formation(2);
  EXPECT_GT(value("tandem:deployment_epoch"), second);
  EXPECT_EQ(value("tandem:deployment_workers_present", "ffn"), 1);
}

TEST_F(DeploymentMetrics, BothSidesTellWhatPartOfTheirStepsTheyWait) {
  run_.connect();
  Request request;
  request.prompt = random_prompt(20, 1);
  request.new_tokens_max = 200;
  run_.submit(std::move(request));
  run_.wait();
  for (const char* role : {"attention", "ffn"}) {
    double ratio = 0;  // counters come with the workers' reports
    for (int i = 0; i < 6000 && ratio <= 0; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      ratio = value("tandem:bubble_ratio", role);
    }
    EXPECT_GT(ratio, 0) << role;
    EXPECT_LT(ratio, 1) << role;
  }
}

}  // namespace
}  // namespace tandem
