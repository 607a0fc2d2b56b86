// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "model/arena.h"

#include <gtest/gtest.h>

#include <cstdint>

#include "ops/reference/reference_backend.h"

namespace tandem {
namespace {

std::uintptr_t address(const Tensor& tensor) {
  return reinterpret_cast<std::uintptr_t>(tensor.data);
}

TEST(Arena, tensors_are_aligned_and_do_not_overlap) {
  const auto backend = make_reference_backend();
  Arena arena(*backend, 1024);
  const Tensor a = arena.f32(3, 5), b = arena.i32(1), c = arena.f32(2, 2);
  EXPECT_EQ(a.shape, (Shape{3, 5}));
  EXPECT_EQ(a.dtype, DType::kF32);
  EXPECT_EQ(b.shape, (Shape{1}));
  EXPECT_EQ(b.dtype, DType::kI32);
  for (const Tensor& tensor : {a, b, c}) EXPECT_EQ(address(tensor) % 64, 0u);
  EXPECT_GE(address(b), address(a) + 3 * 5 * 4);
  EXPECT_GE(address(c), address(b) + 4);
}

TEST(Arena, a_scope_gives_back_what_was_taken_in_it_and_no_more) {
  const auto backend = make_reference_backend();
  Arena arena(*backend, 256);
  const Tensor kept = arena.f32(1, 16);
  void* first = nullptr;
  for (int round = 0; round < 100; ++round) {
    Arena::Scope outer(arena);
    const Tensor a = arena.f32(1, 16);
    if (!first) first = a.data;
    EXPECT_EQ(a.data, first);
    {
      Arena::Scope inner(arena);
      EXPECT_GT(address(arena.i32(16)), address(a));
    }
    EXPECT_GT(address(arena.f32(2, 16)), address(a)) << "what the inner scope had is free again";
  }
  EXPECT_GT(reinterpret_cast<std::uintptr_t>(first), address(kept));
}

TEST(Arena, a_tensor_without_elements_takes_nothing) {
  const auto backend = make_reference_backend();
  Arena arena(*backend, 64);
  EXPECT_TRUE(arena.f32(0, 48)) << "it is there all the same: no data means absent";
  EXPECT_TRUE(arena.f32(1, 16));
}

TEST(Arena, the_bytes_that_scratch_bytes_counts_are_enough) {
  const auto backend = make_reference_backend();
  Arena arena(*backend, scratch_bytes({1, 17, 0, 33}));
  arena.i32(1);
  arena.f32(1, 17);
  arena.f32(0, 5);
  arena.f32(3, 11);
}

TEST(ArenaDeathTest, taking_more_than_there_is_stops_the_program) {
  const auto backend = make_reference_backend();
  Arena arena(*backend, 128);
  arena.f32(1, 16);
  EXPECT_DEATH(arena.f32(1, 17), "scratch memory is smaller");
}

}  // namespace
}  // namespace tandem
