// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "transport/ucx/retired_descriptors.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <string>

#include "base/format.h"

namespace tandem {
namespace {

int open_null() {
  return open("/dev/null", O_RDWR | O_CLOEXEC);
}

// The number is taken, and by nothing that another process could open.
bool is_retired(int number) {
  if (fcntl(number, F_GETFD) < 0) return false;
  const int reached = open(format("/proc/self/fd/{}", number).c_str(), O_RDWR | O_CLOEXEC);
  if (reached >= 0) close(reached);
  return reached < 0;
}

TEST(RetiredDescriptors, free_numbers_are_not_given_out_again) {
  const std::array<int, 3> numbers = {open_null(), open_null(), open_null()};
  for (const int number : numbers) close(number);
  {
    RetiredDescriptors retired(8);
    retired.retire(numbers);
    for (const int number : numbers) EXPECT_TRUE(is_retired(number)) << number;
    const int next = open_null();
    EXPECT_EQ(std::ranges::count(numbers, next), 0);
    close(next);
  }
  EXPECT_LT(fcntl(numbers[0], F_GETFD), 0);
}

TEST(RetiredDescriptors, numbers_in_use_stay_what_they_are) {
  const std::array<int, 2> numbers = {open_null(), open_null()};
  close(numbers[0]);
  RetiredDescriptors retired(8);
  retired.retire(numbers);
  EXPECT_TRUE(is_retired(numbers[0]));
  EXPECT_FALSE(is_retired(numbers[1]));
  EXPECT_EQ(write(numbers[1], "x", 1), 1);
  close(numbers[1]);
}

TEST(RetiredDescriptors, the_oldest_go_when_there_are_too_many) {
  const std::array<int, 4> numbers = {open_null(), open_null(), open_null(), open_null()};
  for (const int number : numbers) close(number);
  RetiredDescriptors retired(3);
  retired.retire(std::span(numbers).first(2));
  retired.retire(std::span(numbers).subspan(2));
  EXPECT_LT(fcntl(numbers[0], F_GETFD), 0);
  for (std::size_t i = 1; i < 4; ++i) EXPECT_TRUE(is_retired(numbers[i])) << i;
}

TEST(RetiredDescriptors, ucx_memory_is_known_by_its_name) {
  const std::string name = format("/ucx_shm_posix_test_{}", getpid());
  const int memory = shm_open(name.c_str(), O_CREAT | O_EXCL | O_RDWR, 0600), other = open_null();
  ASSERT_GE(memory, 0);
  shm_unlink(name.c_str());
  const std::vector<int> found = ucx_memory_descriptors();
  EXPECT_EQ(std::ranges::count(found, memory), 1);
  EXPECT_EQ(std::ranges::count(found, other), 0);
  close(memory);
  close(other);
}

}  // namespace
}  // namespace tandem
