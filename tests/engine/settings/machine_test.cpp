// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "engine/settings/machine.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <thread>
#include <vector>

namespace tandem {
namespace {

TEST(Machine, CoresAreThoseThatThisProcessMayUse) {
  EXPECT_GE(usable_cores(), 1);
  std::thread([] {  // a thread of its own, so that its restriction ends with it
    cpu_set_t all, one;
    ASSERT_EQ(sched_getaffinity(0, sizeof all, &all), 0);
    CPU_ZERO(&one);
    for (int core = 0; core < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++core)
      if (CPU_ISSET(core, &all)) CPU_SET(core, &one);
    ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
    EXPECT_EQ(usable_cores(), 1);
  })
      .join();
}

TEST(Machine, ResidentMemoryGrowsWithWhatIsTouched) {
  const std::int64_t before = resident_memory_bytes();
  EXPECT_GT(before, 0);
  const std::vector<char> touched(64 << 20, 1);
  const char* const volatile kept = touched.data();  // else a compiler may find that nobody needs it
  EXPECT_NE(kept, nullptr);
  EXPECT_GE(resident_memory_bytes(), before + static_cast<std::int64_t>(touched.size()) / 2);
}

TEST(Machine, AvailableMemoryIsNotNegative) {
  EXPECT_GE(available_memory_bytes(), 0);
}

}  // namespace
}  // namespace tandem
