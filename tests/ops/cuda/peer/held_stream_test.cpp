// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/peer/held_stream.h"

#include <gtest/gtest.h>

#include "ops/cuda/device_memory.h"
#include "ops/cuda/peer/clock_offset.h"
#include "ops/cuda/peer/devices.h"
#include "ops/cuda/peer/recorded_work.h"
#include "ops/cuda/peer/step_clock.h"
#include "tests/ops/cuda/gpu_test.h"

namespace tandem::cuda {
namespace {

class HeldStreamTest : public GpuTest {
 protected:
  // Nanoseconds of the GPU's clock before and after what is enqueued.
  template <class Work>
  std::vector<std::uint64_t> stamped(const Work& work) {
    DeviceMemory step(4), stamps(16);
    step.fill(0);
    const WorkStream stream;
    const auto stamp = [&](int place) {
      run(StampTime{.stamps = stamps.as<std::uint64_t>() + place,
                    .step = step.as<std::uint32_t>(),
                    .steps_kept = 1,
                    .stride = 2},
          stream.get());
    };
    const RecordedWork recorded(stream.get(), [&] {
      stamp(0);
      work(stream.get());
      stamp(1);
    });
    recorded.launch(stream.get());
    synchronise(stream.get());
    return stamps.download<std::uint64_t>();
  }
};

TEST_F(HeldStreamTest, AHoldLastsAsLongAsItSays) {
  const auto times = stamped([](Stream stream) { run(HoldStream{.latency_ns = 50'000}, stream); });
  EXPECT_GE(times[1] - times[0], 50'000u);
  EXPECT_LT(times[1] - times[0], 200'000u);
}

// Two messages on one link: the second is sent after the first, and latencies overlap.
TEST_F(HeldStreamTest, MessagesOfALinkComeOneAfterTheOther) {
  DeviceMemory free_at(8);
  free_at.fill(0);
  const WorkStream other;
  const HoldStream message{.free_at = free_at.as<std::uint64_t>(), .occupied_ns = 100'000, .latency_ns = 200'000};
  const auto times = stamped([&](Stream stream) {
    fork_stream(stream, other.get());
    run(message, other.get());
    run(message, stream);
    join_stream(stream, other.get());
  });
  EXPECT_GE(times[1] - times[0], 390'000u);  // one of them waited for the other's 100
  EXPECT_LT(times[1] - times[0], 600'000u);
}

TEST_F(HeldStreamTest, TheOffsetOfTwoClocksIsKnownToMicroseconds) {
  if (device_count() < 2) GTEST_SKIP() << "there is one GPU";
  connect_devices(0, 1);
  const ClockOffset one = measure_clock_offset(0, 1), two = measure_clock_offset(0, 1);
  EXPECT_GT(one.error_ns, 0);
  EXPECT_LT(one.error_ns, 20'000);
  EXPECT_GT(two.at, one.at);
  EXPECT_LE(std::abs(two.offset_ns - one.offset_ns), one.error_ns + two.error_ns + 1'000);
  const ClockOffset back = measure_clock_offset(1, 0);
  EXPECT_LE(std::abs(back.offset_ns + two.offset_ns), back.error_ns + two.error_ns + 1'000);
}

}  // namespace
}  // namespace tandem::cuda
