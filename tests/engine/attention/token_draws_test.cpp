// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "engine/attention/token_draws.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ops/reference/reference_backend.h"

namespace tandem {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr std::int64_t kVocab = 4;

// Allows what is said beforehand, and notes what it is asked about.
class Allowing final : public TokenConstraint {
 public:
  explicit Allowing(std::uint32_t words) : words_(words) {}
  Status allowed(std::span<const std::int32_t> after, std::span<std::uint32_t> words) override {
    asked.emplace_back(after.begin(), after.end());
    words[0] = words_;
    return words_ != 0 ? Status::ok() : Status(ErrorCode::kInternal, "nothing is allowed");
  }
  Status commit(std::int32_t) override { return Status::ok(); }
  bool complete() const override { return false; }

  std::vector<std::vector<std::int32_t>> asked;

 private:
  std::uint32_t words_;
};

class TokenDrawsTest : public testing::Test {
 protected:
  static SequenceRows sequence(RequestId request, std::vector<std::int32_t> tokens, std::int64_t drafts = 0) {
    static const SamplingParams kLikeliest;
    SequenceRows s;
    s.request = request;
    s.tokens = std::move(tokens);
    s.drafts = drafts;
    s.logits_from = s.rows() - 1 - drafts;
    s.samples = true;
    s.sampling = &kLikeliest;
    return s;
  }
  // Of rows in which these tokens are the likeliest.
  Tensor logits(const std::vector<std::int32_t>& likeliest) {
    values_.assign(likeliest.size() * kVocab, 0);
    for (std::size_t row = 0; row < likeliest.size(); ++row)
      values_[row * kVocab + static_cast<std::size_t>(likeliest[row])] = 1;
    return Tensor(values_.data(), DType::kF32, {static_cast<std::int64_t>(likeliest.size()), kVocab});
  }
  std::vector<std::int32_t> tokens_of(std::size_t result) const {
    std::vector<std::int32_t> ids;
    for (const SampledToken& token : results_.at(result).tokens) ids.push_back(token.id);
    return ids;
  }

  std::unique_ptr<Backend> backend_ = make_reference_backend();
  TokenDraws draws_{*backend_, kVocab, 8};
  std::vector<float> values_;
  std::vector<SequenceResult> results_;
};

TEST_F(TokenDrawsTest, EverySequenceHasAResultAndThoseThatSampleAToken) {
  MicroBatch plan;
  plan.sequences = {sequence(1, {0}), sequence(2, {3, 3}), sequence(3, {0})};
  plan.sequences[1].samples = false;  // a chunk in the middle of a prompt
  plan.sequences[1].logits_from = 2;
  draws_.draw(plan, logits({2, 1}), results_);
  ASSERT_EQ(results_.size(), 3);
  EXPECT_THAT(tokens_of(0), ElementsAre(2));
  EXPECT_THAT(tokens_of(1), IsEmpty());
  EXPECT_EQ(results_[1].rows_kept, 2);
  EXPECT_THAT(tokens_of(2), ElementsAre(1));
  EXPECT_EQ(results_[2].request, 3);
}

TEST_F(TokenDrawsTest, ADraftThatIsConfirmedLetsTheNextRowBeDrawnFrom) {
  Allowing all(0b1111);
  MicroBatch plan;
  plan.sequences = {sequence(1, {0, 2, 3, 1}, 3), sequence(2, {0})};
  plan.sequences[0].constraint = &all;
  draws_.draw(plan, logits({2, 1, 0, 0, 3}), results_);  // the second draft is not what was drawn
  EXPECT_THAT(tokens_of(0), ElementsAre(2, 1));
  EXPECT_EQ(results_[0].rows_kept, 2);
  EXPECT_THAT(all.asked, ElementsAre(IsEmpty(), ElementsAre(2)));
  EXPECT_THAT(tokens_of(1), ElementsAre(3));
}

TEST_F(TokenDrawsTest, OnlyWhatAConstraintAllowsIsDrawnAndItsErrorFailsTheToken) {
  Allowing some(0b0101), none(0);
  MicroBatch plan;
  plan.sequences = {sequence(1, {0}), sequence(2, {0}), sequence(3, {0})};
  plan.sequences[0].constraint = &some;
  plan.sequences[1].constraint = &none;
  draws_.draw(plan, logits({3, 3, 3}), results_);
  EXPECT_THAT(tokens_of(0), ElementsAre(0));
  EXPECT_TRUE(results_[1].tokens.at(0).failed);
  EXPECT_FALSE(results_[1].status.is_ok());
  EXPECT_THAT(tokens_of(2), ElementsAre(3));
}

TEST_F(TokenDrawsTest, ARowThatIsLeftOutKeepsNothingUntilItsRequestHasEnded) {
  std::vector<MicroBatch> plans(2);
  plans[0].sequences = {sequence(1, {0})};
  plans[1].sequences = {sequence(2, {0}), sequence(3, {0})};
  std::int32_t ids[3] = {};
  const auto draw = draws_.begin(plans, logits({1, 2, 3}), Tensor(ids, DType::kI32, {3}));
  EXPECT_THAT(ids, ElementsAre(1, 2, 3));
  EXPECT_THAT(draw->finish(), IsEmpty());
  const std::size_t left_out[] = {1};
  draws_.take(plans, left_out, results_);
  EXPECT_EQ(results_[0].rows_kept, 1);
  EXPECT_EQ(results_[1].rows_kept, 0);
  EXPECT_THAT(tokens_of(1), IsEmpty());
  EXPECT_THAT(tokens_of(2), ElementsAre(3));
  EXPECT_TRUE(draws_.needs_host(plans));
  EXPECT_FALSE(draws_.needs_host(std::span(plans).first(1)));
  draws_.forget(2);
  EXPECT_FALSE(draws_.needs_host(plans));
}

TEST_F(TokenDrawsTest, OfARetractedRowNothingIsKept) {
  MicroBatch plan;
  plan.sequences = {sequence(1, {0}), sequence(2, {0})};
  plan.sequences[0].retracted = true;
  plan.sequences[0].sampling = nullptr;
  draws_.draw_together(std::span(&plan, 1), logits({1, 2}), results_);
  EXPECT_EQ(results_[0].rows_kept, 0);
  EXPECT_THAT(tokens_of(0), IsEmpty());
  EXPECT_THAT(tokens_of(1), ElementsAre(2));
  EXPECT_FALSE(draws_.needs_host(std::span(&plan, 1)));
}

}  // namespace
}  // namespace tandem
