// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Sample on every backend against the definition: random rows over all combinations of what a request may ask, with the
// vocabularies and logits that are awkward.
#include <gtest/gtest.h>

#include <limits>

#include "base/format.h"
#include "tests/ops/backend_tests.h"

namespace tandem {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// A row with what it points to.
struct Wish {
  SamplingParams params;
  std::vector<std::int32_t> prompt, answer;
  std::vector<std::uint32_t> allowed;
  std::uint64_t position = 0;

  SampleRow row() const { return {&params, prompt, answer, position, allowed}; }
};

template <class T>
T one_of(Rng& rng, std::initializer_list<T> values) {
  return values.begin()[rng.below(values.size())];
}

std::vector<std::int32_t> some_ids(Rng& rng, std::int64_t vocab, std::uint64_t count_max) {
  std::vector<std::int32_t> ids(rng.below(count_max + 1));
  for (auto& id : ids) id = static_cast<std::int32_t>(rng.below(static_cast<std::uint64_t>(vocab)));
  if (!ids.empty() && rng.below(4) == 0) ids.back() = rng.below(2) == 0 ? -1 : static_cast<std::int32_t>(vocab);
  return ids;
}

// None, one, half or nearly all tokens; a mask may end early or reach beyond the vocabulary.
std::vector<std::uint32_t> some_mask(Rng& rng, std::int64_t vocab) {
  const auto words = static_cast<std::size_t>(vocab + 31) / 32;
  std::vector<std::uint32_t> mask(one_of<std::size_t>(rng, {words, (words + 1) / 2, words + 3}));
  const std::uint64_t kind = rng.below(4);
  for (auto& word : mask)
    word = kind < 2 ? 0 : static_cast<std::uint32_t>(kind == 2 ? rng.next() : rng.next() | rng.next() | rng.next());
  if (kind == 1) {
    const std::uint64_t id = rng.below(static_cast<std::uint64_t>(vocab));
    if (id / 32 < mask.size()) mask[id / 32] = 1u << (id % 32);
  }
  return mask;
}

Wish some_wish(Rng& rng, std::int64_t vocab) {
  Wish wish;
  SamplingParams& p = wish.params;
  wish.position = rng.below(100000);
  p.seed = rng.next();
  p.temperature = one_of(rng, {0.f, .05f, .3f, .7f, 1.f, 1.f, 2.f});
  p.top_k =
      one_of(rng, {0, 0, 1, 50, 900, 5000, static_cast<std::int32_t>(vocab), static_cast<std::int32_t>(vocab) + 5});
  p.top_p = one_of(rng, {1.f, 1.f, 0.f, 1e-6f, .3f, .9f, .9999f, .999999f});
  p.min_p = one_of(rng, {0.f, 0.f, .001f, .2f, 1.f});
  p.logprobs = one_of(rng, {-1, -1, 0, 5, 20});
  if (rng.below(3) == 0) p.repetition_penalty = one_of(rng, {1.1f, 3.f, .8f});
  if (rng.below(3) == 0) p.presence_penalty = one_of(rng, {.5f, -2.f});
  if (rng.below(3) == 0) p.frequency_penalty = one_of(rng, {.25f, 2.f});
  wish.prompt = some_ids(rng, vocab, 700);
  wish.answer = some_ids(rng, vocab, one_of<std::uint64_t>(rng, {0, 3, 500}));
  if (rng.below(4) == 0)
    for (std::int32_t id : some_ids(rng, vocab, 300))
      for (std::uint64_t times = rng.below(3); times > 0; --times)
        p.logit_bias.insert(p.logit_bias.begin() + static_cast<std::ptrdiff_t>(rng.below(p.logit_bias.size() + 1)),
                            {id, 4 * rng.normal()});
  if (rng.below(4) == 0) wish.allowed = some_mask(rng, vocab);
  return wish;
}

enum class Shape { kNormal, kFlat, kTies, kEqual, kWide, kShifted };
constexpr Shape kShapes[] = {Shape::kNormal, Shape::kFlat, Shape::kTies, Shape::kEqual, Shape::kWide, Shape::kShifted};

void shape_logits(const Tensor& logits, Shape shape) {
  for (std::int64_t i = 0; i < logits.rows(); ++i)
    for (std::int64_t c = 0; c < logits.shape[1]; ++c) {
      float& value = logits.row<float>(i)[c];
      if (shape == Shape::kNormal) value *= 3;
      if (shape == Shape::kFlat) value *= .01f;
      if (shape == Shape::kTies) value = std::round(2 * value) / 2;  // zeros of both signs among them
      if (shape == Shape::kEqual) value = -1.5f;
      if (shape == Shape::kWide) value *= 60;
      if (shape == Shape::kShifted) value = c % 17 == 3 ? -1e9f : 200 + 3 * value;
    }
}

std::vector<SampledToken> tokens_of(Backend& backend, const Tensor& logits, std::span<const Wish> wishes) {
  std::vector<SampleRow> rows;
  rows.reserve(wishes.size());
  for (const Wish& wish : wishes) rows.push_back(wish.row());
  std::vector<SampledToken> tokens(rows.size());
  backend.run(Sample{logits, rows, tokens});
  backend.synchronise();
  return tokens;
}

std::string describe(const Wish& wish) {
  const SamplingParams& p = wish.params;
  return format("temperature {} top_k {} top_p {} min_p {} penalties {} {} {} bias {} allowed {} logprobs {}",
                p.temperature, p.top_k, p.top_p, p.min_p, p.repetition_penalty, p.presence_penalty, p.frequency_penalty,
                p.logit_bias.size(), wish.allowed.size(), p.logprobs);
}

testing::AssertionResult agree(const SampledToken& found, const SampledToken& expected) {
  if (found.id != expected.id || found.failed != expected.failed)
    return testing::AssertionFailure() << "token " << found.id << (found.failed ? ", failed" : "") << ", expected "
                                       << expected.id << (expected.failed ? ", failed" : "");
  const auto near = [](float a, float b) { return std::abs(a - b) <= 1e-6f * std::max(1.f, std::abs(b)); };
  if (!near(found.logprob, expected.logprob))
    return testing::AssertionFailure() << "logprob " << found.logprob << ", expected " << expected.logprob;
  if (found.top_logprobs.size() != expected.top_logprobs.size())
    return testing::AssertionFailure() << found.top_logprobs.size() << " likeliest, expected "
                                       << expected.top_logprobs.size();
  for (std::size_t i = 0; i < found.top_logprobs.size(); ++i)
    if (found.top_logprobs[i].first != expected.top_logprobs[i].first ||
        !near(found.top_logprobs[i].second, expected.top_logprobs[i].second))
      return testing::AssertionFailure() << "likeliest " << i << " is " << found.top_logprobs[i].first << " with "
                                         << found.top_logprobs[i].second << ", expected "
                                         << expected.top_logprobs[i].first << " with "
                                         << expected.top_logprobs[i].second;
  return testing::AssertionSuccess();
}

class SampleTest : public EveryBackendTest {};

TEST_P(SampleTest, EveryCombinationAgreesWithTheReference) {
  const auto reference = make_reference_backend(), under_test = backend();
  std::vector<std::pair<std::int64_t, std::int64_t>> sizes = {{1, 20}, {2, 20}, {31, 60}, {1000, 150}, {5003, 100}};
  // The CPU's is the definition itself.
  if (!GetParam().cpu) sizes = {{1, 100}, {2, 100}, {31, 600}, {1000, 800}, {5003, 400}, {49152, 40}, {151936, 48}};
  for (const auto& [vocab, rows] : sizes)
    for (const Shape shape : kShapes) {
      CaseBuilder b(*under_test, static_cast<std::uint64_t>(vocab) + static_cast<std::uint64_t>(shape));
      const Tensor logits = b.normal(rows, vocab, 1, vocab % 7);
      shape_logits(logits, shape);
      std::vector<Wish> wishes;
      for (std::int64_t i = 0; i < rows; ++i) wishes.push_back(some_wish(b.rng(), vocab));
      for (std::int64_t i = 5; i < rows; i += 16)
        logits.row<float>(i)[b.rng().below(static_cast<std::uint64_t>(vocab))] =
            one_of(b.rng(), {NAN, kInfinity, -kInfinity});
      const auto found = tokens_of(*under_test, logits, wishes), expected = tokens_of(*reference, logits, wishes);
      for (std::size_t i = 0; i < wishes.size(); ++i)
        EXPECT_TRUE(agree(found[i], expected[i])) << "vocabulary " << vocab << ", shape " << static_cast<int>(shape)
                                                  << ", row " << i << ": " << describe(wishes[i]);
    }
}

// A row has the same bits whatever stands beside it, and its neighbours' faults are not its own.
TEST_P(SampleTest, ARowDependsOnItselfAlone) {
  const auto under_test = backend();
  constexpr std::int64_t kVocab = 5003, kRows = 40;
  CaseBuilder b(*under_test, 3);
  const Tensor logits = b.normal(kRows, kVocab, 2);
  std::vector<Wish> wishes;
  for (std::int64_t i = 0; i < kRows; ++i) {
    wishes.push_back(some_wish(b.rng(), kVocab));
    wishes.back().params.logprobs = 3;
    if (i % 3 == 1) logits.row<float>(i)[17 * i] = NAN;
  }
  const auto together = tokens_of(*under_test, logits, wishes);
  for (std::int64_t i = 0; i < kRows; ++i) {
    const auto row = static_cast<std::size_t>(i);
    const SampledToken alone = tokens_of(*under_test, logits.slice_rows(i, 1), std::span(wishes).subspan(row, 1))[0];
    EXPECT_EQ(alone.id, together[row].id) << describe(wishes[row]);
    EXPECT_EQ(alone.failed, together[row].failed);
    EXPECT_EQ(alone.top_logprobs, together[row].top_logprobs);
    EXPECT_TRUE(same_bits({alone.logprob}, {together[row].logprob}));
    EXPECT_TRUE(alone.failed || i % 3 != 1);
  }
}

// What no client may ask, and numbers that leave f32's range on the way: the definition's answer all the same.
TEST_P(SampleTest, UnusualRowsAreTheDefinitions) {
  const auto reference = make_reference_backend(), under_test = backend();
  constexpr std::int64_t kVocab = 200;
  CaseBuilder b(*under_test);
  std::vector<Wish> wishes(9);
  for (Wish& wish : wishes) wish.params.temperature = 1, wish.answer = {3, 4, 4};
  wishes[0].params.logprobs = 150;
  wishes[1].params.logprobs = 500;  // more than there are
  wishes[2].params.logit_bias = {{7, kInfinity}};
  wishes[2].params.temperature = 0;
  wishes[3].params.temperature = 1e-44f;
  wishes[4].params.frequency_penalty = 3e38f;
  wishes[5].params.presence_penalty = -3e38f, wishes[5].params.frequency_penalty = -3e38f;
  wishes[5].params.temperature = 0;
  wishes[6].params.logit_bias = {{9, -kInfinity}, {9, 1.f}};
  wishes[7].params.repetition_penalty = 1e-38f, wishes[7].params.temperature = 0;
  wishes[8].params.top_k = -4, wishes[8].params.top_p = -1;
  const Tensor logits = b.normal(static_cast<std::int64_t>(wishes.size()), kVocab, 5);
  const auto found = tokens_of(*under_test, logits, wishes), expected = tokens_of(*reference, logits, wishes);
  for (std::size_t i = 0; i < wishes.size(); ++i) EXPECT_TRUE(agree(found[i], expected[i])) << "row " << i;
}

// A draw that is waited for later: ids for what is run next, the same tokens for the host, whatever is given meanwhile;
// what is left out is for run().
TEST_P(SampleTest, ADrawThatIsBegunIsTheSame) {
  const auto under_test = backend();
  constexpr std::int64_t kVocab = 5003, kRows = 40;
  for (const bool plain : {true, false}) {
    CaseBuilder b(*under_test, 5);
    const Tensor logits = b.normal(kRows, kVocab, 2);
    std::vector<Wish> wishes(kRows);
    for (Wish& wish : wishes)
      if (plain)
        wish.params.temperature = 0;
      else
        wish = some_wish(b.rng(), kVocab);
    if (!plain) wishes[8].params.logprobs = 500, wishes[8].allowed.clear();  // the definition's
    logits.row<float>(3)[17] = NAN;
    const std::vector<SampledToken> expected = tokens_of(*under_test, logits, wishes);

    std::vector<SampledToken> found(kRows);
    const Buffer ids = under_test->allocate(kRows * 4), behind = under_test->allocate_shared(kRows * 4);
    std::unique_ptr<Draw> draw;
    {
      std::vector<SampleRow> rows;
      for (const Wish& wish : wishes) rows.push_back(wish.row());
      draw = under_test->begin(Sample{logits, rows, found}, Tensor(ids.data(), DType::kI32, {kRows}));
    }
    under_test->copy(behind.data(), ids.data(), ids.bytes());
    std::vector<float> zeros(kRows * kVocab);
    under_test->copy(logits.data, zeros.data(), zeros.size() * sizeof(float));
    const std::vector<std::size_t> left_out = draw->finish();
    under_test->synchronise();
    EXPECT_TRUE(left_out.empty() || (!plain && !GetParam().cpu));
    for (std::size_t i = 0; i < wishes.size(); ++i) {
      const std::int32_t id = static_cast<const std::int32_t*>(behind.data())[i];
      if (std::ranges::find(left_out, i) != left_out.end()) {
        EXPECT_TRUE(id >= 0 && id < kVocab) << id;
        continue;
      }
      EXPECT_TRUE(agree(found[i], expected[i])) << "row " << i << ": " << describe(wishes[i]);
      EXPECT_EQ(id, std::max(expected[i].id, 0)) << "row " << i;
    }
  }
}

// More rows with penalties than have their copies at a time.
TEST_P(SampleTest, ManyEditedRowsGoInTurns) {
  const auto reference = make_reference_backend(), under_test = backend();
  constexpr std::int64_t kVocab = 60000, kRows = 300;  // the CUDA backend edits 139 at a time
  CaseBuilder b(*under_test, 9);
  const Tensor logits = b.normal(kRows, kVocab, 2);
  std::vector<Wish> wishes(kRows);
  for (std::size_t i = 0; i < wishes.size(); ++i)
    if (i % 10 != 3) {
      wishes[i].params.repetition_penalty = 2;
      wishes[i].prompt = some_ids(b.rng(), kVocab, 3000);
    }
  const auto found = tokens_of(*under_test, logits, wishes), expected = tokens_of(*reference, logits, wishes);
  for (std::size_t i = 0; i < wishes.size(); ++i) EXPECT_TRUE(agree(found[i], expected[i])) << "row " << i;
}

// Pearson's statistic of how often each bin was drawn, against its probability. Bins of probability 0 are not drawn.
double chi_square(std::span<const int> drawn, std::span<const double> probabilities, int draws) {
  double sum = 0;
  for (std::size_t i = 0; i < drawn.size(); ++i) {
    const double expected = draws * probabilities[i];
    if (probabilities[i] == 0) {
      EXPECT_EQ(drawn[i], 0) << "bin " << i;
    } else {
      sum += (drawn[i] - expected) * (drawn[i] - expected) / expected;
    }
  }
  return sum;
}

// Tokens are binned by id modulo bins.
double chi_square_of_draws(Backend& backend, std::int64_t vocab, const SamplingParams& params, std::size_t bins) {
  constexpr std::int64_t kRows = 250;
  constexpr int kRuns = 40;
  CaseBuilder b(backend, 12);
  const Tensor logits = b.normal(kRows, vocab);
  for (std::int64_t i = 1; i < kRows; ++i) std::copy_n(logits.row<float>(0), vocab, logits.row<float>(i));
  std::vector<int> drawn(bins);
  std::vector<Wish> wishes(kRows);
  for (int run = 0; run < kRuns; ++run) {
    for (std::int64_t i = 0; i < kRows; ++i) {
      wishes[static_cast<std::size_t>(i)].params = params;
      wishes[static_cast<std::size_t>(i)].position = static_cast<std::uint64_t>(run * kRows + i);
    }
    for (const SampledToken& token : tokens_of(backend, logits, wishes))
      ++drawn[static_cast<std::size_t>(token.id) % bins];
  }
  std::vector<float> filtered(logits.row<float>(0), logits.row<float>(0) + vocab);
  filter_logits(wishes[0].row(), filtered);
  double total = 0;
  std::vector<double> probabilities(bins);
  for (const float value : filtered) total += std::exp(static_cast<double>(value));
  for (std::size_t id = 0; id < filtered.size(); ++id)
    probabilities[id % bins] += std::exp(static_cast<double>(filtered[id])) / total;
  return chi_square(drawn, probabilities, kRuns * kRows);
}

// Limits are passed by one sequence of seeds in 10,000.
TEST_P(SampleTest, DrawsFollowTheDistribution) {
  const auto under_test = backend();
  SamplingParams params{.temperature = .8f, .seed = 77};
  EXPECT_LT(chi_square_of_draws(*under_test, 31, params, 31), 67.6) << "30 degrees of freedom";
  params.top_k = 12;
  params.min_p = .05f;
  EXPECT_LT(chi_square_of_draws(*under_test, 31, params, 31), 37.4) << "at most 11";
  if (GetParam().cpu) return;
  params = {.temperature = 1.5f, .top_p = .9f, .seed = 78};
  EXPECT_LT(chi_square_of_draws(*under_test, 5003, params, 16), 44.3) << "15";
  params = {.temperature = 1, .seed = 79};
  EXPECT_LT(chi_square_of_draws(*under_test, 5003, params, 16), 44.3) << "15";
}

INSTANTIATE_TEST_SUITE_P(All, SampleTest, testing::ValuesIn(backends_under_test()), backend_name);

}  // namespace
}  // namespace tandem
