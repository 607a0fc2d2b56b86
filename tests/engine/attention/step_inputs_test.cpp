// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "engine/attention/step_inputs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ops/reference/reference_backend.h"

namespace tandem {
namespace {

using testing::ElementsAre;

std::vector<std::int32_t> values(const Tensor& tensor) {
  const auto* begin = tensor.as<const std::int32_t>();
  return {begin, begin + tensor.shape.elements()};
}

class StepInputsTest : public testing::Test {
 protected:
  std::unique_ptr<Backend> backend_ = make_reference_backend();
  StepInputs inputs_{*backend_, {.rows = 8, .sequences = 3, .blocks_per_sequence = 2, .embedded_hidden = 3}};
};

SequenceRows rows(std::int64_t position, std::vector<std::int32_t> tokens, std::vector<std::int32_t> blocks,
                  std::int64_t logits_from) {
  SequenceRows rows;
  rows.position = position;
  rows.tokens = std::move(tokens);
  rows.blocks = std::move(blocks);
  rows.logits_from = logits_from;
  return rows;
}

TEST_F(StepInputsTest, LaysOutAPromptChunkAndADecodingRow) {
  MicroBatch plan;
  plan.sequences.push_back(rows(62, {10, 11, 12}, {5, 3}, 2));  // over the border of two blocks
  plan.sequences.push_back(rows(0, {20}, {7}, 0));
  const RowBatch& batch = inputs_.fill(plan);
  EXPECT_EQ(batch.rows(), 4);
  EXPECT_THAT(values(batch.ids), ElementsAre(10, 11, 12, 20));
  EXPECT_THAT(values(batch.positions), ElementsAre(62, 63, 64, 0));
  EXPECT_THAT(values(batch.slots), ElementsAre(5 * 64 + 62, 5 * 64 + 63, 3 * 64, 7 * 64));
  EXPECT_THAT(values(batch.sequences), ElementsAre(0, 0, 0, 1));
  EXPECT_THAT(values(batch.logit_rows), ElementsAre(2, 3));
  EXPECT_EQ(batch.block_table.shape, (Shape{2, 2}));
  EXPECT_EQ(batch.block_table.row<std::int32_t>(0)[0], 5);
  EXPECT_EQ(batch.block_table.row<std::int32_t>(0)[1], 3);
  EXPECT_EQ(batch.block_table.row<std::int32_t>(1)[0], 7);
  EXPECT_EQ(batch.context_tokens, 63 + 64 + 65 + 1);
}

TEST_F(StepInputsTest, AChunkInTheMiddleOfAPromptHasNoLogits) {
  MicroBatch plan;
  plan.sequences.push_back(rows(4, {1, 2}, {0}, 2));
  EXPECT_EQ(inputs_.fill(plan).logit_rows.shape[0], 0);
}

TEST_F(StepInputsTest, NothingIsLeftOfTheFillBefore) {
  MicroBatch plan;
  plan.sequences.push_back(rows(0, {1, 2, 3, 4, 5, 6, 7, 8}, {1}, 0));
  EXPECT_EQ(inputs_.fill(plan).rows(), 8);
  plan.sequences = {rows(9, {42}, {6}, 0)};
  const RowBatch& batch = inputs_.fill(plan);
  EXPECT_THAT(values(batch.ids), ElementsAre(42));
  EXPECT_THAT(values(batch.slots), ElementsAre(6 * 64 + 9));
  EXPECT_THAT(values(batch.logit_rows), ElementsAre(0));
  EXPECT_EQ(batch.context_tokens, 10);
}

TEST_F(StepInputsTest, MoreThanTheLimitIsABug) {
  MicroBatch plan;
  plan.sequences.push_back(rows(0, std::vector<std::int32_t>(9, 1), {1}, 0));
  EXPECT_DEATH(inputs_.fill(plan), "larger than its limits");
  plan.sequences = {rows(0, {1}, {1, 2, 3}, 0)};
  EXPECT_DEATH(inputs_.fill(plan), "block table");
}

TEST_F(StepInputsTest, TakesTheEmbeddedRowsOfAChunk) {
  auto made = std::make_shared<EmbeddingRows>();
  made->hidden = 3;
  for (int i = 0; i < 30; ++i) made->values.push_back(static_cast<float>(i));
  const std::vector<EmbeddedSpan> spans{{1, 2, 0, made}, {4, 5, 3, made}};
  MicroBatch plan;
  plan.sequences.push_back(rows(0, {20}, {7}, 0));
  plan.sequences.push_back(rows(2, {10, 11, 12, 13}, {5}, 3));  // positions 2 to 5
  plan.sequences.back().embedded = spans;
  const RowBatch& batch = inputs_.fill(plan);
  ASSERT_EQ(batch.embedded.rows(), 3);
  EXPECT_THAT(values(batch.embedded_at), ElementsAre(1, 3, 4));
  EXPECT_EQ(batch.embedded.row<float>(0)[0], 3);   // row 1, of position 2
  EXPECT_EQ(batch.embedded.row<float>(1)[0], 9);   // row 3, of position 4
  EXPECT_EQ(batch.embedded.row<float>(2)[2], 14);  // row 4, of position 5
  EXPECT_EQ(batch.embedded_weights.row<float>(2)[0], 1);
  plan.sequences.pop_back();
  EXPECT_EQ(inputs_.fill(plan).embedded.rows(), 0);
}

}  // namespace
}  // namespace tandem
