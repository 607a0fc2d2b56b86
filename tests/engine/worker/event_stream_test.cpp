// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "engine/worker/event_stream.h"

#include <gtest/gtest.h>

#include <thread>

namespace tandem {
namespace {

constexpr Nanoseconds kLong = 60 * kSecond;

RequestEvent event(RequestId id, std::vector<std::int32_t> tokens, FinishReason finish = FinishReason::kNone) {
  RequestEvent event{.id = id, .tokens = {}, .finish = finish};
  for (const std::int32_t token : tokens) event.tokens.push_back({.id = token});
  return event;
}

std::vector<std::int32_t> ids(const RequestEvent& event) {
  std::vector<std::int32_t> ids;
  for (const SampledToken& token : event.tokens) ids.push_back(token.id);
  return ids;
}

TEST(EventStream, GivesRequestsInOrder) {
  EventStream stream;
  stream.push(event(2, {5}));
  stream.push(event(1, {6}));
  EXPECT_EQ(stream.pop(0)->id, 2u);
  EXPECT_EQ(stream.pop(0)->id, 1u);
  EXPECT_FALSE(stream.pop(0));
}

// A slow reader costs memory for its tokens, not for events.
TEST(EventStream, UnreadNewsOfARequestGrows) {
  EventStream stream;
  stream.push(event(1, {5, 6}));
  stream.push(event(2, {9}));
  stream.push(event(1, {7}));
  stream.push(event(1, {8}, FinishReason::kLength));
  const RequestEvent first = *stream.pop(0);
  EXPECT_EQ(ids(first), (std::vector<std::int32_t>{5, 6, 7, 8}));
  EXPECT_EQ(first.finish, FinishReason::kLength);
  EXPECT_EQ(stream.pop(0)->id, 2u);
  EXPECT_FALSE(stream.pop(0));
}

TEST(EventStream, WaitsForAnotherThread) {
  EventStream stream;
  std::thread writer([&] {
    for (std::int32_t i = 0; i < 1000; ++i) stream.push(event(1, {i}));
  });
  std::vector<std::int32_t> all;
  while (all.size() < 1000) {
    const std::optional<RequestEvent> next = stream.pop(kLong);
    ASSERT_TRUE(next);
    for (const std::int32_t id : ids(*next)) all.push_back(id);
  }
  writer.join();
  for (std::int32_t i = 0; i < 1000; ++i) EXPECT_EQ(all[i], i);
}

TEST(EventStream, GivesUpAfterTheTimeout) {
  const RealClock clock;
  const Nanoseconds begin = clock.now();
  EXPECT_FALSE(EventStream().pop(2'000'000));
  EXPECT_GE(clock.now() - begin, 2'000'000);
}

}  // namespace
}  // namespace tandem
