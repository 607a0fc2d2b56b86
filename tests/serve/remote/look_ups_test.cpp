// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "serve/remote/look_ups.h"

#include <gtest/gtest.h>

#include <future>

namespace tandem {
namespace {

using Clock = std::chrono::steady_clock;

std::vector<IpAddress> address_named(const std::string& text) {
  return {parse_ip_address(text)};
}

TEST(LookUps, AnswerWhoeverAsks) {
  LookUps look_ups(address_named);
  std::vector<std::future<std::optional<std::vector<IpAddress>>>> answers;
  const auto end = Clock::now() + std::chrono::minutes(1);
  for (const char* name : {"1.0.0.1", "1.0.0.2", "1.0.0.3", "1.0.0.4"})
    answers.push_back(std::async(std::launch::async, [&, name] { return look_ups.find(name, end); }));
  for (std::size_t i = 0; i < answers.size(); ++i) EXPECT_EQ(answers[i].get()->at(0).bytes[3], i + 1);
}

TEST(LookUps, ThatTakeTooLongKeepNobodyWaitingAndAreNotRepeated) {
  std::promise<void> go_on;
  std::shared_future<void> gate = go_on.get_future();
  std::atomic<int> asked = 0;
  LookUps look_ups([&](const std::string& name) {
    ++asked;
    gate.wait();
    return address_named(name);
  });
  EXPECT_FALSE(look_ups.find("1.0.0.1", Clock::now() + std::chrono::milliseconds(20)));
  EXPECT_FALSE(look_ups.find("1.0.0.2", Clock::now() + std::chrono::milliseconds(20)));  // stands behind it
  go_on.set_value();
  EXPECT_EQ(look_ups.find("1.0.0.3", Clock::now() + std::chrono::minutes(1))->at(0).bytes[3], 3);
  EXPECT_EQ(asked, 2) << "the second question was given up before its turn";
}

}  // namespace
}  // namespace tandem
