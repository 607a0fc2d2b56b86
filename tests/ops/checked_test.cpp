// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/checked.h"

#include "tests/ops/backend_tests.h"

namespace tandem {
namespace {

TEST(CheckedBackend, RunsWhatIsRight) {
  const auto checked = make_checked_backend(make_reference_backend());
  EXPECT_EQ(checked->describe(), "reference, checked");
  const auto plain = make_reference_backend();
  for (const OperatorCase& c : operator_cases()) {
    if (!c.name.starts_with("matmul q8_0 2x")) continue;
    EXPECT_EQ(outputs_of(c, *checked), outputs_of(c, *plain));
  }
}

TEST(CheckedBackendDeathTest, StopsAtWhatIsWrong) {
  const auto checked = make_checked_backend(make_reference_backend());
  CaseBuilder b(*checked);
  const Tensor x = b.zeros(2, 8), out = b.zeros(2, 9);
  const Tensor weight = b.normal_vector(8, 1, 0);
  EXPECT_DEATH(checked->run(RmsNorm{out, x, weight, 1e-5f}), "rms_norm: out differs from x");
  EXPECT_DEATH(checked->run(GatherRows{x, x, b.ids({0, 2})}), "index outside x");
  KvCache& cache = b.cache({1, 1, 4, 4, DType::kF32, 2});
  EXPECT_DEATH(checked->zero_block(cache, 2), "block outside the cache");
}

}  // namespace
}  // namespace tandem
