// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What the tests of backends share: the backends under test, and comparing outputs.
#pragma once

#include <gtest/gtest.h>

#include <bit>
#include <ostream>

#include "ops/cpu/cpu_backend.h"
#include "ops/cuda/cuda_backend.h"
#include "ops/cuda/device.h"
#include "ops/forwarding.h"
#include "ops/reference/reference_backend.h"
#include "tests/ops/operator_cases.h"

namespace tandem {

// Values of a tensor, row by row; i32 as f32.
inline std::vector<float> values_of(const Tensor& t) {
  std::vector<float> values;
  for (std::int64_t i = 0; i < t.rows(); ++i)
    for (std::int64_t c = 0; c < t.shape.row_elements(); ++c)
      values.push_back(t.dtype == DType::kI32 ? static_cast<float>(t.row<std::int32_t>(i)[c]) : t.row<float>(i)[c]);
  return values;
}

inline testing::AssertionResult same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return testing::AssertionFailure() << a.size() << " values, expected " << b.size();
  for (std::size_t i = 0; i < a.size(); ++i)
    if (std::bit_cast<std::uint32_t>(a[i]) != std::bit_cast<std::uint32_t>(b[i]))
      return testing::AssertionFailure() << "element " << i << " is " << a[i] << ", expected the bits of " << b[i];
  return testing::AssertionSuccess();
}

// Positions of NaN and infinities first, then the largest error, then the normalised one.
inline testing::AssertionResult close(const std::vector<float>& found, const std::vector<float>& expected,
                                      const Tolerance& tolerance) {
  if (found.size() != expected.size())
    return testing::AssertionFailure() << found.size() << " values, expected " << expected.size();
  double squares = 0, error_squares = 0, largest = 0;
  std::size_t worst = 0;
  for (std::size_t i = 0; i < found.size(); ++i) {
    if (std::isnan(expected[i]) != std::isnan(found[i]) || (std::isinf(expected[i]) && found[i] != expected[i]) ||
        std::isinf(found[i]) != std::isinf(expected[i]))
      return testing::AssertionFailure() << "element " << i << " is " << found[i] << ", expected " << expected[i];
    if (!std::isfinite(expected[i])) continue;
    const double error = std::abs(static_cast<double>(found[i]) - expected[i]);
    squares += static_cast<double>(expected[i]) * expected[i];
    error_squares += error * error;
    if (error > largest) largest = error, worst = i;
  }
  if (found.empty()) return testing::AssertionSuccess();
  const double rms = std::sqrt(squares / static_cast<double>(found.size()));
  if (largest > tolerance.largest * rms)
    return testing::AssertionFailure() << "element " << worst << " is " << found[worst] << ", expected "
                                       << expected[worst] << "; the root mean square is " << rms;
  if (std::sqrt(error_squares) > tolerance.normalised * std::sqrt(squares))
    return testing::AssertionFailure() << "normalised error " << std::sqrt(error_squares / squares) << " is over "
                                       << tolerance.normalised;
  return testing::AssertionSuccess();
}

// Runs a case and returns its outputs.
inline std::vector<std::vector<float>> outputs_of(const OperatorCase& c, Backend& backend) {
  CaseBuilder builder(backend);
  const BuiltCase built = c.build(builder);
  for (const Operator& op : built.operators) {
    validate(op);
    backend.run(op);
  }
  backend.synchronise();
  std::vector<std::vector<float>> outputs;
  for (const Tensor& t : built.outputs) outputs.push_back(values_of(t));
  return outputs;
}

// How the name of a variant is printed when a test with it fails.
inline void PrintTo(const CpuVariant& variant, std::ostream* out) {
  *out << variant.name;
}

// A test for each compiled variant; those the machine lacks are skipped with the reason.
class CpuVariantTest : public testing::TestWithParam<CpuVariant> {
 protected:
  void SetUp() override {
    if (!GetParam().available()) GTEST_SKIP() << "this machine lacks " << GetParam().missing;
  }
};

inline std::string variant_name(const testing::TestParamInfo<CpuVariant>& info) {
  return info.param.name;
}

// Waits for every operator, so that a test looks at shared memory at any time.
class WaitingBackend final : public ForwardingBackend {
 public:
  using ForwardingBackend::ForwardingBackend;
  void run(const Operator& op) override {
    ForwardingBackend::run(op);
    synchronise();
  }
  std::unique_ptr<Draw> begin(const Sample& op, const Tensor& ids) override { return inner().begin(op, ids); }
};

// A backend as compiled, or a variant of it.
struct BackendUnderTest {
  std::string name;
  std::string why_not;  // empty: this machine can run it
  bool cpu = true;
};

inline std::vector<BackendUnderTest> backends_under_test() {
  std::vector<BackendUnderTest> all;
  for (const CpuVariant& variant : cpu_variants())
    all.push_back({variant.name, variant.available() ? "" : "this machine lacks " + variant.missing});
  if (const cuda::DeviceFacts facts = cuda::look_at_device(); facts.built)
    all.push_back({"cuda", cuda::why_unusable(facts), false});
  return all;
}

// How the name of a backend is printed when a test with it fails.
inline void PrintTo(const BackendUnderTest& backend, std::ostream* out) {
  *out << backend.name;
}

// A test for each backend that was compiled; those the machine cannot run are skipped with the reason.
class EveryBackendTest : public testing::TestWithParam<BackendUnderTest> {
 protected:
  void SetUp() override {
    if (!GetParam().why_not.empty()) GTEST_SKIP() << GetParam().why_not;
  }
  // Of what the backend runs.
  static std::vector<OperatorCase> cases() {
    std::vector<OperatorCase> all = operator_cases();
    std::erase_if(all, [](const OperatorCase& c) { return GetParam().cpu ? c.fp8 || c.long_context : c.int8; });
    return all;
  }
  // threads are for cpu.
  std::unique_ptr<Backend> backend(int threads = 2) {
    if (GetParam().cpu) return make_cpu_backend({threads, GetParam().name});
    return std::make_unique<WaitingBackend>(make_cuda_backend());
  }
};

inline std::string backend_name(const testing::TestParamInfo<BackendUnderTest>& info) {
  return info.param.name;
}

}  // namespace tandem
