// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "traffic/workload.h"

#include <gmock/gmock.h>

#include <cstdio>
#include <fstream>
#include <sstream>

#include "base/json.h"
#include "tests/base/error_of.h"

namespace tandem {
namespace {

using ::testing::HasSubstr;

std::size_t word_count(const std::string& text) {
  std::istringstream words(text);
  std::size_t count = 0;
  for (std::string word; words >> word;) ++count;
  return count;
}

TEST(Workload, made_up_prompts_have_the_lengths_that_were_asked_for) {
  const std::vector<LoadRequest> requests =
      make_workload({.requests = 200, .input = {3, 9}, .output = {5, 6}, .model = "m"});
  ASSERT_EQ(requests.size(), 200U);
  std::set<std::size_t> lengths;
  for (const LoadRequest& request : requests) {
    const Json body = Json::parse(request.body);
    lengths.insert(word_count(body["messages"][0]["content"]));
    EXPECT_TRUE(body["max_tokens"] == 5 || body["max_tokens"] == 6);
    EXPECT_EQ(body["model"], "m");
    EXPECT_EQ(body["stream"], true);
    EXPECT_EQ(body["ignore_eos"], true);
    EXPECT_EQ(request.arrival, 0);
  }
  EXPECT_EQ(lengths, (std::set<std::size_t>{3, 4, 5, 6, 7, 8, 9}));
}

TEST(Workload, a_seed_fixes_everything_and_a_rate_changes_times_only) {
  const auto bodies = [](const WorkloadConfig& config) {
    std::vector<std::string> list;
    for (const LoadRequest& request : make_workload(config)) list.push_back(request.body);
    return list;
  };
  const WorkloadConfig config{.requests = 20, .input = {1, 30}, .seed = 7};
  WorkloadConfig other = config;
  EXPECT_EQ(bodies(config), bodies(other));
  other.rate = 10;
  EXPECT_EQ(bodies(config), bodies(other));
  other.seed = 8;
  EXPECT_NE(bodies(config), bodies(other));
}

TEST(Workload, arrivals_are_of_the_rate_and_random) {
  const std::vector<LoadRequest> requests = make_workload({.requests = 20'000, .rate = 50, .input = {1, 1}});
  double below_mean = 0;
  for (std::size_t i = 1; i < requests.size(); ++i) {
    const Nanoseconds gap = requests[i].arrival - requests[i - 1].arrival;
    ASSERT_GE(gap, 0);
    below_mean += gap < 20'000'000;
  }
  EXPECT_NEAR(static_cast<double>(requests.back().arrival) * 1e-9, 400, 15);
  EXPECT_NEAR(below_mean / 20'000, 1 - 1 / 2.71828, 0.02) << "of exponential gaps so many are shorter than the mean";
}

class Dataset : public ::testing::Test {
 protected:
  ~Dataset() override { std::remove(config_.dataset.c_str()); }
  void write(const std::string& text) { std::ofstream(config_.dataset) << text; }
  std::string problem() {
    return error_of([&] { make_workload(config_); }).message();
  }
  WorkloadConfig config_{.requests = 3, .dataset = ::testing::TempDir() + "tandem_workload_test.jsonl"};
};

TEST_F(Dataset, lines_are_requests_and_what_they_say_wins) {
  write(
      "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"max_tokens\":3,\"temperature\":1}\n\n{\"prompt\":\"b\"}"
      "\n");
  std::vector<LoadRequest> requests = make_workload(config_);
  Json first = Json::parse(requests[0].body), second = Json::parse(requests[1].body);
  EXPECT_EQ(first["max_tokens"], 3);
  EXPECT_EQ(first["temperature"], 1);
  EXPECT_EQ(second["messages"][0]["content"], "b") << "a text becomes a conversation";
  EXPECT_EQ(second["max_tokens"], 64);
  EXPECT_EQ(requests[2].body, requests[0].body) << "from the start again";
}

TEST_F(Dataset, faults_name_file_and_line) {
  EXPECT_THAT(problem(), HasSubstr("cannot be read"));
  write("{\"prompt\":\"a\"}\n{\n");
  EXPECT_THAT(problem(), HasSubstr("jsonl line 2"));
  write("[1]\n");
  EXPECT_THAT(problem(), HasSubstr("line 1 is no object"));
  write("{\"text\":\"a\"}\n");
  EXPECT_THAT(problem(), HasSubstr("has no messages"));
  write("\n");
  EXPECT_THAT(problem(), HasSubstr("has no line"));
}

TEST(Workload, lengths_are_one_number_or_two) {
  EXPECT_EQ(parse_token_range("7").min, 7);
  EXPECT_EQ(parse_token_range("7").max, 7);
  EXPECT_EQ(parse_token_range("7:9").max, 9);
  for (const char* text : {"", "a", "7:", ":7", "7:9:1", "7 9", "99999999999999999999"})
    EXPECT_THROW(parse_token_range(text), Error) << text;
  for (const TokenRange range : {TokenRange{0, 1}, TokenRange{5, 4}, TokenRange{1, 1'000'000'000}})
    EXPECT_THROW(make_workload({.input = range}), Error);
  EXPECT_THROW(make_workload({.rate = -1}), Error);
}

}  // namespace
}  // namespace tandem
