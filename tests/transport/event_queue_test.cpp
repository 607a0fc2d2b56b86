// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "transport/inproc/event_queue.h"

#include <gtest/gtest.h>

#include <array>
#include <thread>

#include "base/clock.h"
#include "transport/inproc/ring.h"

namespace tandem {
namespace {

constexpr Nanoseconds kLong = 20 * kSecond;

Completion completion(OperationId operation) {
  return {.event = {.operation = operation}, .of_send = false};
}

TEST(Ring, goes_around) {
  Ring<int> ring(3);
  EXPECT_TRUE(ring.empty());
  for (int i = 0; i < 10; ++i) {
    ring.push(i);
    ring.push(i + 100);
    EXPECT_EQ(ring.size(), 2u);
    EXPECT_EQ(ring.pop(), i);
    EXPECT_EQ(ring.pop(), i + 100);
  }
  for (int i = 0; i < 3; ++i) ring.push(i);
  EXPECT_TRUE(ring.full());
  ring.clear();
  EXPECT_TRUE(ring.empty());
}

TEST(RingDeathTest, has_bounds) {
  Ring<int> ring(1);
  EXPECT_DEATH(ring.pop(), "empty ring");
  ring.push(1);
  EXPECT_DEATH(ring.push(2), "full ring");
}

TEST(EventQueue, gives_what_fits) {
  EventQueue queue(4, 0);
  for (OperationId i = 0; i < 3; ++i) queue.push(completion(i));
  std::array<Completion, 2> out;
  EXPECT_EQ(queue.take(out, 0), 2u);
  EXPECT_EQ(out[1].event.operation, 1u);
  EXPECT_EQ(queue.take(out, kLong), 1u);
  EXPECT_EQ(out[0].event.operation, 2u);
  EXPECT_EQ(queue.take(out, 0), 0u);
}

TEST(EventQueue, wake_ends_one_wait) {
  EventQueue queue(1, 1000);
  std::array<Completion, 1> out;
  const RealClock clock;
  const Nanoseconds start = clock.now();
  queue.wake();
  queue.wake();
  EXPECT_EQ(queue.take(out, 0), 0u);
  EXPECT_EQ(queue.take(out, kLong), 0u);
  const Nanoseconds woken = clock.now();
  EXPECT_LT(woken - start, kLong);
  EXPECT_EQ(queue.take(out, 2'000'000), 0u);
  EXPECT_GE(clock.now() - woken, 2'000'000) << "the wake was used up";
}

// A lost notification would cost kLong; the test takes milliseconds.
TEST(EventQueue, loses_no_event_to_sleep) {
  constexpr OperationId kEvents = 20'000;
  for (const Nanoseconds spin : {0, 2000}) {
    EventQueue ping(1, spin), pong(1, spin);
    std::thread other([&] {
      std::array<Completion, 1> out;
      for (OperationId i = 0; i < kEvents; ++i) {
        ASSERT_EQ(ping.take(out, kLong), 1u);
        pong.push(out[0]);
      }
    });
    std::array<Completion, 1> out;
    for (OperationId i = 0; i < kEvents; ++i) {
      ping.push(completion(i));
      ASSERT_EQ(pong.take(out, kLong), 1u);
      ASSERT_EQ(out[0].event.operation, i);
    }
    other.join();
  }
}

}  // namespace
}  // namespace tandem
