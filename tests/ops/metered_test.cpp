// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/metered.h"

#include <set>

#include "base/error.h"
#include "tests/ops/backend_tests.h"

namespace tandem {
namespace {

// Asks for a step the first time only, as a device that records does; which operators it would run is not asked here.
class AskingOnce final : public ForwardingBackend {
 public:
  using ForwardingBackend::ForwardingBackend;
  void replay(std::span<const std::int64_t> key, const std::function<void()>& record) override {
    if (known_.emplace(key.begin(), key.end()).second) record();
  }
  bool prepare(std::span<const std::int64_t> key, const std::function<void()>& record) override {
    const bool is_new = known_.emplace(key.begin(), key.end()).second;
    if (is_new) record();
    return is_new;
  }
  void launch(std::span<const std::int64_t>) override {}

 private:
  std::set<std::vector<std::int64_t>> known_;
};

TEST(MeteredBackend, AddsUpWhatRunsAndWhatIsReplayed) {
  Work total;
  const auto metered = make_metered_backend(std::make_unique<AskingOnce>(make_reference_backend()),
                                            [&](const Work& done) { total += done; });
  CaseBuilder b(*metered);
  const Tensor x = b.normal(3, 64), out = b.zeros(3, 40);
  const MatMul product{out, x, b.weight(DType::kF32, 40, 64), KSlices::whole(64)};
  constexpr std::int64_t kFlops = 2 * 3 * 40 * 64;
  metered->run(product);
  EXPECT_EQ(total.flops, kFlops);
  const auto twice = [&] {
    metered->run(product);
    metered->run(product);
  };
  const std::int64_t key[] = {1}, other[] = {2};
  metered->replay(key, twice);
  EXPECT_EQ(total.flops, 3 * kFlops);
  metered->replay(other, [&] { metered->run(product); });
  EXPECT_EQ(total.flops, 4 * kFlops);
  metered->replay(key, twice);
  EXPECT_EQ(total.flops, 6 * kFlops) << "what was recorded under this key";
  metered->replay(other, twice);
  EXPECT_EQ(total.flops, 7 * kFlops);
  const std::int64_t prepared[] = {3};
  EXPECT_TRUE(metered->prepare(prepared, twice));
  EXPECT_FALSE(metered->prepare(prepared, twice));
  EXPECT_EQ(total.flops, 7 * kFlops) << "it has not run";
  metered->launch(prepared);
  metered->launch(prepared);
  EXPECT_EQ(total.flops, 11 * kFlops);
}

TEST(MeteredBackend, CountsOnWhenAStepCouldNotBePrepared) {
  Work total;
  const auto metered = make_metered_backend(std::make_unique<AskingOnce>(make_reference_backend()),
                                            [&](const Work& done) { total += done; });
  CaseBuilder b(*metered);
  const Tensor x = b.normal(3, 64), out = b.zeros(3, 40);
  const MatMul product{out, x, b.weight(DType::kF32, 40, 64), KSlices::whole(64)};
  const std::int64_t key[] = {1};
  EXPECT_THROW((void)metered->prepare(key, [] { throw Error(ErrorCode::kOutOfResources, "no room for a graph"); }),
               Error);
  metered->run(product);
  EXPECT_EQ(total.flops, 2 * 3 * 40 * 64);
}

// A draw that is begun counts as one that is run, and goes to whoever can run on behind it.
TEST(MeteredBackend, CountsDrawsThatAreBegun) {
  class Behind final : public ForwardingBackend {
   public:
    explicit Behind(int& begun) : ForwardingBackend(make_reference_backend()), begun_(begun) {}
    bool runs_behind() const override { return true; }
    std::unique_ptr<Draw> begin(const Sample& op, const Tensor& ids) override {
      ++begun_;
      return ForwardingBackend::begin(op, ids);
    }

   private:
    int& begun_;
  };
  int begun = 0;
  Work total;
  const auto metered = make_metered_backend(std::make_unique<Behind>(begun), [&](const Work& done) { total += done; });
  EXPECT_TRUE(metered->runs_behind());
  CaseBuilder b(*metered);
  const Tensor logits = b.normal(2, 50);
  const SamplingParams greedy{.temperature = 0};
  const SampleRow rows[] = {{&greedy, {}, {}, 1}, {&greedy, {}, {}, 1}};
  std::vector<SampledToken> run(2), drawn(2);
  metered->run(Sample{logits, rows, run});
  const Work of_run = total;
  EXPECT_GT(of_run.bytes_read, 0);
  const Buffer ids = metered->allocate(8);
  EXPECT_TRUE(metered->begin(Sample{logits, rows, drawn}, Tensor(ids.data(), DType::kI32, {2}))->finish().empty());
  EXPECT_EQ(begun, 1);
  EXPECT_EQ(total.bytes_read, 2 * of_run.bytes_read);
  EXPECT_EQ(drawn[1].id, run[1].id);
}

}  // namespace
}  // namespace tandem
