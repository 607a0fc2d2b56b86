// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "roles/endpoint_maker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <thread>

#include "tests/base/error_of.h"

namespace tandem {
namespace {

std::unique_ptr<MeetingTransport> wait_for(EndpointMaker& maker) {
  for (;;) {
    if (std::unique_ptr<MeetingTransport> made = maker.take()) return made;
    std::this_thread::yield();
  }
}

using Made = std::unique_ptr<MeetingTransport>;
const UcxConfig kTcp{.transports = "tcp", .devices = "lo"};

TEST(EndpointMaker, HandsOverWhatItMakesAndSaysSo) {
  std::promise<void> told;
  ThreadedEndpointMaker maker({}, [&] { told.set_value(); });
  EXPECT_FALSE(maker.busy());
  EXPECT_EQ(maker.take(), nullptr);
  maker.begin(3, 4, kTcp);
  EXPECT_TRUE(maker.busy());
  told.get_future().wait();
  const auto endpoint = maker.take();
  ASSERT_NE(endpoint, nullptr);
  EXPECT_EQ(endpoint->rank(), 3);
  EXPECT_FALSE(maker.busy());
  EXPECT_EQ(maker.take(), nullptr);
}

TEST(EndpointMaker, WhatCannotBeMadeIsToldWhereItIsTaken) {
  ThreadedEndpointMaker maker({}, {});
  maker.begin(0, 4, {.transports = "no such transport"});
  EXPECT_NE(error_of([&] { wait_for(maker); }).message(), "");
  EXPECT_FALSE(maker.busy());
  maker.begin(1, 4, kTcp);
  EXPECT_EQ(wait_for(maker)->rank(), 1);
}

TEST(EndpointMaker, NobodyWaitsForOneThatDoesNotComeBack) {
  const auto released = std::make_shared<std::promise<void>>();
  const auto ended = std::make_shared<std::promise<void>>();
  const auto stuck = [released, ended](PeerRank, std::int32_t, const UcxConfig&) -> Made {
    released->get_future().wait();
    ended->set_value();
    return nullptr;
  };
  {
    ThreadedEndpointMaker maker({.make = stuck, .time_max = 1'000'000}, [] { ADD_FAILURE() << "told after the end"; });
    maker.begin(0, 4, kTcp);
    while (maker.overdue()) std::this_thread::yield();
    EXPECT_EQ(maker.take(), nullptr);
    EXPECT_TRUE(maker.busy());
    EXPECT_THAT(maker.overdue().error().message(), testing::HasSubstr("the endpoint is not made after 1 ms"));
  }
  released->set_value();
  ended->get_future().wait();
}

TEST(EndpointMaker, ItsEndWaitsForWhatIsUnderWay) {
  std::promise<void> begun;
  std::atomic<bool> done = false;
  const auto slow = [&](PeerRank, std::int32_t, const UcxConfig&) -> Made {
    begun.set_value();
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    done = true;
    return nullptr;
  };
  {
    ThreadedEndpointMaker maker({.make = slow, .time_max = 60'000'000'000}, {});
    maker.begin(0, 4, kTcp);
    begun.get_future().wait();
  }
  EXPECT_TRUE(done);
}

}  // namespace
}  // namespace tandem
