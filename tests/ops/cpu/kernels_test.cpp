// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The vector exponential against the library's in double precision.
#include "ops/cpu/kernels.h"

#include <bit>
#include <cmath>
#include <vector>

#include "ops/cpu/variants.h"
#include "tests/ops/backend_tests.h"

namespace tandem {
namespace {

class ExponentialTest : public CpuVariantTest {
 protected:
  std::vector<float> exponentials(const std::vector<float>& x) {
    std::vector<float> out(x.size());
    cpu::choose_kernels(GetParam().name)
        .kernels->exponential(out.data(), x.data(), static_cast<std::int64_t>(x.size()));
    return out;
  }
};

TEST_P(ExponentialTest, IsWithinTwoUnitsInTheLastPlace) {
  std::vector<float> x;
  for (double value = -103; value < 88.7; value += 0.00037) x.push_back(static_cast<float>(value));
  const std::vector<float> found = exponentials(x);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double exact = std::exp(static_cast<double>(x[i]));
    const auto rounded = static_cast<float>(exact);
    const double unit = static_cast<double>(std::nextafter(rounded, INFINITY)) - rounded;
    ASSERT_LE(std::abs(found[i] - exact), 2 * unit) << "x = " << x[i];
  }
}

TEST_P(ExponentialTest, HasTheLimits) {
  const std::vector<float> x = {0.0f, -0.0f, INFINITY, -INFINITY, 89, 1e30f, -104, -1e30f};
  EXPECT_EQ(exponentials(x), (std::vector<float>{1, 1, INFINITY, 0, INFINITY, INFINITY, 0, 0}));
  EXPECT_TRUE(std::isnan(exponentials({NAN})[0]));
  EXPECT_TRUE(std::isnan(exponentials(std::vector<float>(16, NAN))[5]));
}

INSTANTIATE_TEST_SUITE_P(Cpu, ExponentialTest, testing::ValuesIn(cpu_variants()), variant_name);

}  // namespace
}  // namespace tandem
