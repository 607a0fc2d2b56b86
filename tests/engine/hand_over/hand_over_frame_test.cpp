// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "engine/hand_over/hand_over_frame.h"

#include <gtest/gtest.h>

#include <vector>

namespace tandem {
namespace {

// The arrays of a view lie in the payload one after the other, without a gap or an overlap, and fill it.
TEST(HandOverFrame, RoutedArraysFillThePayload) {
  std::vector<std::byte> bytes(hand_over_bytes(3, 16, 2));
  EXPECT_EQ(bytes.size(), 3u * 16 * 4 + 3 * 2 * 4 + 3 * 2 * 4);
  const HandOver view = hand_over_in(bytes, 3, 16, 2);
  EXPECT_EQ(view.hidden.shape, (Shape{3, 16}));
  EXPECT_EQ(view.expert_ids.shape, (Shape{3, 2}));
  EXPECT_EQ(view.expert_weights.shape, (Shape{3, 2}));
  EXPECT_EQ(view.hidden.data, bytes.data());
  EXPECT_EQ(view.expert_ids.data, bytes.data() + 3 * 16 * 4);
  EXPECT_EQ(view.expert_weights.data, bytes.data() + 3 * 16 * 4 + 3 * 2 * 4);
  EXPECT_EQ(view.expert_ids.dtype, DType::kI32);
}

TEST(HandOverFrame, CodesAndTheirFactorsCrossInAQuarterOfTheBytes) {
  std::vector<std::byte> bytes(hand_over_bytes(3, 200, 2, Activations::kFp8));
  EXPECT_EQ(bytes.size(), 3u * (200 + 2 * 4) + 3 * 2 * 8);
  const HandOver view = hand_over_in(bytes, 3, 200, 2, Activations::kFp8);
  EXPECT_FALSE(view.hidden);
  EXPECT_EQ(view.rows(), 3);
  EXPECT_EQ(view.scales.data, bytes.data());
  EXPECT_EQ(view.scales.shape, (Shape{3, 2}));
  EXPECT_EQ(view.expert_ids.data, bytes.data() + 3 * 2 * 4);
  EXPECT_EQ(view.expert_weights.data, bytes.data() + 3 * 2 * 4 + 3 * 2 * 4);
  EXPECT_EQ(view.codes.data, bytes.data() + 3 * 2 * 4 + 2 * 3 * 2 * 4);
  EXPECT_EQ(view.codes.shape, (Shape{3, 200}));
  EXPECT_EQ(view.codes.dtype, DType::kF8E4M3);
}

// What the host reads of rows on a device is one piece of them, which begins with the ids.
TEST(HandOverFrame, ChoicesAloneAreAPieceOfTheWhole) {
  for (const Activations activations : {Activations::kF32, Activations::kFp8}) {
    std::vector<std::byte> bytes(hand_over_bytes(3, 200, 2, activations)), alone(choices_bytes(3, 2));
    EXPECT_EQ(alone.size(), 3u * 2 * 8);
    const HandOver whole = hand_over_in(bytes, 3, 200, 2, activations), choices = choices_in(alone, 3, 2);
    EXPECT_FALSE(choices.hidden);
    EXPECT_EQ(choices.expert_ids.data, alone.data());
    EXPECT_EQ(choices.expert_ids.shape, whole.expert_ids.shape);
    EXPECT_EQ(choices.expert_weights.shape, whole.expert_weights.shape);
    EXPECT_EQ(static_cast<std::byte*>(choices.expert_weights.data) - alone.data(),
              static_cast<std::byte*>(whole.expert_weights.data) - static_cast<std::byte*>(whole.expert_ids.data));
  }
  EXPECT_EQ(choices_bytes(3, 0), 0u);
  EXPECT_FALSE(choices_in({}, 3, 0).expert_ids);
}

TEST(HandOverFrame, DenseLayersHaveNoChoices) {
  std::vector<std::byte> bytes(hand_over_bytes(3, 16, 0));
  EXPECT_EQ(bytes.size(), 3u * 16 * 4);
  EXPECT_FALSE(hand_over_in(bytes, 3, 16, 0).expert_ids);
}

TEST(ReturnFrame, SlotRowsThenPartial) {
  std::vector<std::byte> bytes(return_bytes(5, 3, 16));
  EXPECT_EQ(bytes.size(), 8u * 16 * 4);
  const FfnOutput view = return_in(bytes, 5, 3, 16);
  EXPECT_EQ(view.slot_rows.shape, (Shape{5, 16}));
  EXPECT_EQ(view.partial.shape, (Shape{3, 16}));
  EXPECT_EQ(view.partial.data, bytes.data() + 5 * 16 * 4);
}

TEST(ReturnFrame, AWorkerWithoutSlicesOrChosenExperts) {
  std::vector<std::byte> bytes(return_bytes(0, 0, 16));
  EXPECT_TRUE(bytes.empty());
  const FfnOutput view = return_in(bytes, 0, 0, 16);
  EXPECT_EQ(view.slot_rows.shape[0], 0);
  EXPECT_FALSE(view.partial);
}

TEST(ReturnFrame, PartialsComeFromSlicesOfWhatEveryTokenUses) {
  ModelConfig model;
  model.routed = {false, true};
  const FfnShare with_slices{.slice_count = 2}, without{.slice_count = 0};
  EXPECT_EQ(partial_rows(model, with_slices, 0, 7), 7);
  EXPECT_EQ(partial_rows(model, with_slices, 1, 7), 0) << "no shared expert";
  EXPECT_EQ(partial_rows(model, without, 0, 7), 0);
  model.shared_width = 64;
  EXPECT_EQ(partial_rows(model, with_slices, 1, 7), 7);
}

TEST(HandOverFrame, AViewBeyondItsFrameIsABug) {
  std::vector<std::byte> bytes(hand_over_bytes(3, 16, 2) - 1);
  EXPECT_DEATH(hand_over_in(bytes, 3, 16, 2), "larger than its frame");
  EXPECT_DEATH(return_in(bytes, 100, 3, 16), "larger than its frame");
}

}  // namespace
}  // namespace tandem
