// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/traced.h"

#include "tests/ops/backend_tests.h"

namespace tandem {
namespace {

TEST(TracedBackend, TellsWhatRan) {
  VirtualClock clock;
  std::vector<OperatorTrace> traces;
  const auto traced = make_traced_backend(make_reference_backend(), clock, [&](const OperatorTrace& trace) {
    traces.push_back(trace);
    clock.advance_to(trace.end + 10);
  });
  CaseBuilder b(*traced);
  const Tensor x = b.normal(3, 64), out = b.zeros(3, 40);
  const MatMul product{out, x, b.weight(DType::kF32, 40, 64), KSlices::whole(64)};
  traced->run(product);
  traced->run(GatherRows{b.zeros(2, 64), x, b.ids({2, 0})});
  ASSERT_EQ(traces.size(), 2u);
  EXPECT_EQ(traces[0].name, "matmul");
  EXPECT_EQ(traces[0].rows, 3);
  EXPECT_EQ(traces[0].n, 40);
  EXPECT_EQ(traces[0].k, 64);
  EXPECT_EQ(traces[0].work.flops, 2 * 3 * 40 * 64);
  EXPECT_EQ(traces[0].begin, 0);
  EXPECT_EQ(traces[1].name, "gather_rows");
  EXPECT_EQ(traces[1].n, 0) << "no weight";
  EXPECT_EQ(traces[1].begin, 10);
}

}  // namespace
}  // namespace tandem
