// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cpu/cpu_backend.h"

#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "tests/ops/backend_tests.h"

namespace tandem {
namespace {

ErrorCode code_of(const CpuOptions& options) {
  try {
    make_cpu_backend(options);
  } catch (const Error& error) {
    return error.code();
  }
  return ErrorCode::kInternal;
}

TEST(CpuBackend, RefusesOptionsOutOfRange) {
  EXPECT_EQ(code_of({0, "auto"}), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code_of({100000, "auto"}), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code_of({1, "avx1024"}), ErrorCode::kInvalidArgument);
}

TEST(CpuBackend, AutoIsTheBestThatTheMachineHas) {
  const auto variants = cpu_variants();
  ASSERT_FALSE(variants.empty());
  EXPECT_TRUE(variants.back().available()) << "the baseline runs everywhere";
  std::string best;
  for (const CpuVariant& variant : variants) {
    if (best.empty() && variant.available()) best = variant.name;
    if (variant.available()) continue;
    EXPECT_EQ(code_of({1, variant.name}), ErrorCode::kUnsupported);
  }
  EXPECT_EQ(make_cpu_backend({2, "auto"})->describe(), "cpu/" + best + ", 2 threads");
}

TEST(CpuBackend, RefusesFp8ArithmeticByName) {
  const auto cpu = make_cpu_backend({});
  CaseBuilder b(*cpu);
  const Weight* weight = b.weight(DType::kF8E4M3, 128, 128);
  EXPECT_FALSE(cpu->has_fp8_products(*weight));
  try {
    cpu->run(Fp8MatMul{b.zeros(1, 128), b.zeros(1, 128), weight, KSlices::whole(128)});
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_EQ(error.message(), "the cpu backend has no FP8 arithmetic: fp8_matmul");
  }
}

TEST(CpuBackend, HasInt8ProductsOfWhatIsAllInBlocksOfIntegers) {
  const auto cpu = make_cpu_backend({}), reference = make_reference_backend();
  for (Backend* backend : {cpu.get(), reference.get()}) {
    CaseBuilder b(*backend);
    for (const DType dtype : kQuantisedTypes) EXPECT_TRUE(backend->has_int8_products(*b.weight(dtype, 40, 256)));
    for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16, DType::kF8E4M3})
      EXPECT_FALSE(backend->has_int8_products(*b.weight(dtype, 40, 256))) << name(dtype);
    EXPECT_TRUE(backend->has_int8_products(*b.weight({{DType::kQ4_K, 32}, {DType::kQ6_K, 32}}, 256)));
    EXPECT_FALSE(backend->has_int8_products(*b.weight({{DType::kQ4_K, 32}, {DType::kF32, 32}}, 256)));
  }
}

// Integers are exact and the order of f32 sums is one, so that variants with fused multiply-adds agree to the bit.
TEST(CpuBackend, Int8ProductsHaveTheSameBitsInVariantsThatFuse) {
  std::vector<float> expected;
  std::string first;
  for (const CpuVariant& variant : cpu_variants()) {
    if (!variant.available() || variant.name == "baseline") continue;
    const auto cpu = make_cpu_backend({2, variant.name});
    CaseBuilder b(*cpu);
    std::vector<float> found;
    for (const DType dtype : kQuantisedTypes) {
      const int k = whole_blocks(dtype, 576);
      const Tensor x = b.normal(21, k), out = b.zeros(21, 70);
      cpu->run(Int8MatMul{out, x, b.weight(dtype, 70, k), eight_slices(dtype, k)});
      const std::vector<float> values = values_of(out);
      found.insert(found.end(), values.begin(), values.end());
    }
    if (first.empty()) first = variant.name, expected = found;
    EXPECT_TRUE(same_bits(found, expected)) << variant.name << " and " << first;
  }
}

TEST(CpuBackend, RefusesWeightsItCannotHold) {
  const auto cpu = make_cpu_backend({});
  const std::vector<std::byte> bytes(4096);
  const auto code = [&](DType dtype, std::int64_t k) {
    try {
      cpu->pack({{{bytes.data(), dtype, 1, 64, {}, {}}}, k});
    } catch (const Error& error) {
      return error.code();
    }
    return ErrorCode::kInternal;
  };
  EXPECT_EQ(code(DType::kU8, 32), ErrorCode::kUnsupported);
  EXPECT_EQ(code(DType::kF8E4M3, 32), ErrorCode::kInvalidArgument) << "no scales";
  EXPECT_EQ(code(DType::kQ4_K, 32), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code(DType::kQ4_1, 33), ErrorCode::kInvalidArgument);
  EXPECT_THROW(cpu->make_kv_cache({1, 1, 4, 4, DType::kF16, 1}), Error);
}

TEST(CpuBackend, KeepsWeightsInTheirType) {
  const auto cpu = make_cpu_backend({});
  CaseBuilder b(*cpu);
  for (const DType dtype : kWeightTypes) {
    const std::size_t scales = dtype == DType::kF8E4M3 ? 768 / kScaleBlock * 4 : 0;  // for each column
    EXPECT_EQ(b.weight(dtype, 64, 768)->bytes(), 64 * (row_bytes(dtype, 768) + scales)) << name(dtype);
  }
}

TEST(CpuBackend, ReordersAndReadsStridedRows) {
  const auto cpu = make_cpu_backend({2, "auto"});
  CaseBuilder b(*cpu);
  const StoredMatrix stored = random_matrix(b.rng(), DType::kQ8_0, 70, 128);
  WeightPart part = stored.part();  // columns 32 … 95 of every row, last row first
  part.data += row_bytes(DType::kQ8_0, 32);
  for (std::int32_t i = 0; i < 70; ++i) part.row_order.push_back(69 - i);
  const auto weight = cpu->pack({{part}, 64});
  std::vector<std::int32_t> all(70);
  for (std::int32_t i = 0; i < 70; ++i) all[i] = i;
  const Tensor out = b.zeros(70, 64);
  cpu->run(EmbedRows{out, weight.get(), b.ids(all)});
  for (std::int32_t i = 0; i < 70; ++i) {
    std::vector<float> expected(64);
    dequantise(DType::kQ8_0, part.data + (69 - i) * part.row_stride_bytes, 64, expected.data());
    EXPECT_TRUE(same_bits(values_of(out.slice_rows(i, 1)), expected)) << "row " << i;
  }
}

// As the workers of one process do: each has its backend, weights are shared.
TEST(CpuBackend, SeveralRunSideBySide) {
  const auto first = make_cpu_backend({2, "auto"});
  CaseBuilder b(*first);
  const Weight* weight = b.weight(DType::kQ4_1, 256, 256);
  const Tensor x = b.normal(9, 256), expected = b.zeros(9, 256);
  first->run(MatMul{expected, x, weight, KSlices::whole(256)});
  std::vector<std::thread> workers;
  std::vector<int> wrong(3);
  for (int w = 0; w < 3; ++w)
    workers.emplace_back([&, w] {
      const auto own = make_cpu_backend({2, "auto"});
      CaseBuilder local(*own);
      const Tensor out = local.zeros(9, 256);
      for (int i = 0; i < 50; ++i) {
        own->run(MatMul{out, x, weight, KSlices::whole(256)});
        wrong[w] += !same_bits(values_of(out), values_of(expected));
      }
    });
  for (std::thread& worker : workers) worker.join();
  EXPECT_EQ(wrong, std::vector<int>(3));
}

TEST(CpuBackend, SamplesEveryRowByItself) {
  const auto cpu = make_cpu_backend({2, "auto"});
  CaseBuilder b(*cpu);
  const Tensor logits = b.normal(8, 5000);
  logits.row<float>(3)[17] = NAN;
  SamplingParams params;
  params.temperature = 0.9f;
  params.top_p = 0.9f;
  std::vector<SampleRow> rows;
  for (std::uint64_t i = 0; i < 8; ++i) rows.push_back({&params, {}, {}, i});
  std::vector<SampledToken> found(8), expected(8);
  cpu->run(Sample{logits, rows, found});
  make_reference_backend()->run(Sample{logits, rows, expected});
  for (int i = 0; i < 8; ++i) {
    EXPECT_EQ(found[i].id, expected[i].id);
    EXPECT_EQ(found[i].failed, i == 3);
  }
}

}  // namespace
}  // namespace tandem
