// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "tensor/tensor.h"

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <utility>
#include <vector>

namespace tandem {
namespace {

TEST(Shape, counts_and_prints) {
  const Shape shape{3, 576};
  EXPECT_EQ(shape.elements(), 3 * 576);
  EXPECT_EQ(shape.row_elements(), 576);
  EXPECT_EQ(to_string(shape), "[3, 576]");
  EXPECT_EQ(Shape{}.elements(), 1) << "a scalar";
  EXPECT_EQ((Shape{0, 4}.elements()), 0);
  EXPECT_NE((Shape{4}), (Shape{4, 1})) << "the rank counts";
}

TEST(Tensor, slices_are_views) {
  std::vector<float> data(4 * 6);
  std::iota(data.begin(), data.end(), 0.0f);
  const Tensor whole(data.data(), DType::kF32, {4, 6});
  const Tensor rows = whole.slice_rows(1, 2);
  EXPECT_EQ(rows.shape, (Shape{2, 6}));
  EXPECT_EQ(rows.f32()[0], 6);
  EXPECT_TRUE(rows.is_dense());

  const Tensor columns = whole.slice_columns(2, 3);
  EXPECT_EQ(columns.shape, (Shape{4, 3}));
  EXPECT_FALSE(columns.is_dense());
  EXPECT_EQ(columns.row<float>(3)[1], 3 * 6 + 2 + 1);
  EXPECT_EQ(columns.slice_rows(2, 1).f32()[0], 2 * 6 + 2) << "rows of a column range keep its stride";
}

TEST(TensorDeath, slices_stay_inside) {
  std::vector<float> data(12);
  const Tensor whole(data.data(), DType::kF32, {3, 4});
  EXPECT_DEATH(whole.slice_rows(2, 2), "outside the tensor");
  EXPECT_DEATH(whole.slice_columns(-1, 2), "outside the tensor");
  EXPECT_DEATH(Tensor(data.data(), DType::kBF16, {3}).f32(), "not f32");
}

TEST(Buffer, is_zeroed_aligned_and_moves) {
  Buffer buffer = allocate_host(1000);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer.data()) % 64, 0u);
  EXPECT_EQ(buffer.bytes(), 1000u);
  for (std::size_t i = 0; i < buffer.bytes(); ++i) ASSERT_EQ(buffer.bytes_data()[i], std::byte{0});
  void* const data = buffer.data();
  Buffer other = std::move(buffer);
  EXPECT_EQ(other.data(), data);
  EXPECT_EQ(buffer.data(), nullptr);  // NOLINT: a moved-from buffer is empty, and this says so
  other = Buffer();
  EXPECT_EQ(other.data(), nullptr);
  EXPECT_EQ(allocate_host(0).data(), nullptr);
}

TEST(Buffer, calls_its_deleter_once) {
  static int deletions;
  deletions = 0;
  int value = 0;
  {
    Buffer first(&value, sizeof value, [](void*, std::size_t bytes) { deletions += static_cast<int>(bytes); });
    Buffer second = std::move(first);
    EXPECT_EQ(deletions, 0);
  }
  EXPECT_EQ(deletions, 4);
}

}  // namespace
}  // namespace tandem
