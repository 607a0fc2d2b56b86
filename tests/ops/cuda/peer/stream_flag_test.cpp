// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/peer/stream_flag.h"

#include <gtest/gtest.h>

#include <vector>

#include "base/error.h"
#include "ops/cuda/device_memory.h"
#include "ops/cuda/peer/devices.h"
#include "ops/cuda/peer/recorded_work.h"
#include "ops/cuda/peer/step_clock.h"
#include "ops/cuda/split/decode_step.h"
#include "tests/ops/cuda/gpu_test.h"

namespace tandem::cuda {
namespace {

class StreamFlagTest : public GpuTest {
 protected:
  // The second GPU where there is one, else the first again.
  int other() const { return device_count() > 1 ? 1 : 0; }
};

class StreamFlagByTest : public StreamFlagTest, public testing::WithParamInterface<FlagsBy> {};

// Two sides throw a number at each other; each adds one. Recorded once, launched three times, the waiting side first.
TEST_P(StreamFlagByTest, TwoRecordedSidesTakeTurns) {
  constexpr int kTurns = 50, kLaunches = 3;
  connect_devices(0, other());
  DeviceMemory here(4), here_flag(4), there, there_flag;
  here.fill(0);
  here_flag.fill(0);
  WorkStream mine;
  const OnDevice on(other());
  there = DeviceMemory(4);
  there_flag = DeviceMemory(4);
  there.fill(0);
  there_flag.fill(0);
  WorkStream theirs;
  const RecordedWork answer(theirs.get(), [&] {
    for (int turn = 0; turn < kTurns; ++turn) {
      wait_and_lower_flag(there_flag.as<std::uint32_t>(), GetParam(), theirs.get());
      count_step(there.as<std::uint32_t>(), theirs.get());
      copy_between_devices(here.as<std::uint32_t>(), there.as<std::uint32_t>(), 4, theirs.get());
      raise_flag(here_flag.as<std::uint32_t>(), GetParam(), theirs.get());
    }
  });
  RecordedWork ask;
  {
    const OnDevice first(0);
    ask = RecordedWork(mine.get(), [&] {
      for (int turn = 0; turn < kTurns; ++turn) {
        count_step(here.as<std::uint32_t>(), mine.get());
        copy_between_devices(there.as<std::uint32_t>(), here.as<std::uint32_t>(), 4, mine.get());
        raise_flag(there_flag.as<std::uint32_t>(), GetParam(), mine.get());
        wait_and_lower_flag(here_flag.as<std::uint32_t>(), GetParam(), mine.get());
      }
    });
  }
  for (int launch = 0; launch < kLaunches; ++launch) {
    answer.launch(theirs.get());
    const OnDevice first(0);
    ask.launch(mine.get());
  }
  synchronise_device();
  const OnDevice first(0);
  synchronise_device();
  EXPECT_EQ(here.download<std::uint32_t>()[0], 2u * kTurns * kLaunches);
  EXPECT_EQ(here_flag.download<std::uint32_t>()[0], 0u);
}

INSTANTIATE_TEST_SUITE_P(Kinds, StreamFlagByTest, testing::Values(FlagsBy::kThreads, FlagsBy::kFrontEnds),
                         [](const auto& info) { return info.param == FlagsBy::kThreads ? "Threads" : "FrontEnds"; });

TEST_F(StreamFlagTest, AClockTellsTheTimeBetweenItsMarks) {
  const WorkStream stream(WorkStream::Priority::kUrgent);
  StepClock clock;
  for (int i = 0; i < 3; ++i) clock.mark(stream.get());
  clock.wait_for(2);
  EXPECT_TRUE(clock.has_passed(1));
  ASSERT_EQ(clock.microseconds().size(), 2u);
  for (const double us : clock.microseconds()) EXPECT_GE(us, 0);
}

// A recorded step stamps one place before it is counted and one after: the last two steps of three are kept.
TEST_F(StreamFlagTest, StampsOfTheLastStepsAreKept) {
  const WorkStream stream;
  DeviceMemory stamps(4 * sizeof(std::uint64_t)), step(4);
  stamps.fill(0);
  step.fill(0xff);  // the step that is counted first is 0
  const auto stamp = [&](int place, std::uint32_t ahead) {
    run(StampTime{.stamps = stamps.as<std::uint64_t>() + place,
                  .step = step.as<std::uint32_t>(),
                  .ahead = ahead,
                  .steps_kept = 2,
                  .stride = 2},
        stream.get());
  };
  synchronise_device();
  const RecordedWork recorded(stream.get(), [&] {
    stamp(0, 1);
    count_step(step.as<std::uint32_t>(), stream.get());
    stamp(1, 0);
  });
  for (int i = 0; i < 3; ++i) recorded.launch(stream.get());
  synchronise(stream.get());
  const std::vector<std::uint64_t> told = stamps.download<std::uint64_t>();
  EXPECT_GT(told[2], 0u);
  EXPECT_GE(told[3], told[2]);  // of step 1
  EXPECT_GE(told[0], told[3]);  // of step 2, in the place of step 0
  EXPECT_GE(told[1], told[0]);
}

TEST_F(StreamFlagTest, AGpuThatIsNotThereIsNamed) {
  try {
    const OnDevice on(63);
    FAIL() << "there is no GPU 63";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnavailable);
    EXPECT_NE(std::string(error.what()).find("GPU 63 of "), std::string::npos);
  }
}

}  // namespace
}  // namespace tandem::cuda
