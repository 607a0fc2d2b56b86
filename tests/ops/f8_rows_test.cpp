// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/f8_rows.h"

#include "base/scalar.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/safetensors.h"
#include "tests/ops/backend_tests.h"

namespace tandem {
namespace {

TEST(QuantiseRow, EachGroupHasItsLargestAt448) {
  std::vector<float> x(200);
  for (int c = 0; c < 200; ++c)
    x[static_cast<std::size_t>(c)] = (c < 128 ? 0.01f : 30.0f) * static_cast<float>(c % 7 - 3);
  std::vector<std::uint8_t> codes(200);
  float scales[2];
  quantise_row(x.data(), 200, codes.data(), scales);
  EXPECT_EQ(scales[0], 0.03f / 448);
  EXPECT_EQ(scales[1], 90.0f / 448);
  std::vector<float> wide(200);
  widen_row(codes.data(), scales, 200, wide.data());
  for (std::size_t c = 0; c < 200; ++c) EXPECT_NEAR(wide[c], x[c], std::abs(x[c]) / 16) << c;
}

TEST(QuantiseRow, ZerosStayZerosAndNaNStaysWhereItWas) {
  std::vector<float> x(130, 0.0f), wide(130);
  x[129] = NAN;
  x[128] = 1;
  std::vector<std::uint8_t> codes(130);
  float scales[2];
  quantise_row(x.data(), 130, codes.data(), scales);
  EXPECT_EQ(scales[0], 1e-10f / 448);
  widen_row(codes.data(), scales, 130, wide.data());
  for (std::size_t c = 0; c < 128; ++c) EXPECT_EQ(wide[c], 0);
  EXPECT_EQ(wide[128], 1);
  EXPECT_TRUE(std::isnan(wide[129]));
}

// One FP8 layer as an independent implementation computed it.
class RecordedFp8Layer : public testing::Test {
 protected:
  std::span<const std::byte> bytes(const std::string& name) const {
    for (const TensorInfo& info : header_.tensors)
      if (info.name == "unit." + name) return file_.bytes(info.offset, info.bytes);
    throw std::invalid_argument(name);
  }
  std::vector<float> floats(const std::string& name) const {
    std::vector<float> values(bytes(name).size() / 4);
    std::memcpy(values.data(), bytes(name).data(), bytes(name).size());
    return values;
  }
  std::vector<float> product(Backend& backend, const Tensor& x) const {
    const TensorInfo& w = *checkpoint_->find("model.layers.0.mlp.down_proj.weight");
    const TensorInfo& s = *checkpoint_->find("model.layers.0.mlp.down_proj.weight_scale_inv");
    BlockScales scales{std::vector<float>(static_cast<std::size_t>(s.shape.elements())), 0, s.shape[1]};
    std::memcpy(scales.values.data(), checkpoint_->data(s).data(), s.bytes);
    const WeightPart part{checkpoint_->data(w).data(),          *w.dtype, w.shape[0],
                          static_cast<std::size_t>(w.shape[1]), {},       scales};
    const auto weight = backend.pack({{part}, w.shape[1]});
    CaseBuilder b(backend);
    const Tensor out = b.zeros(x.rows(), w.shape[0]);
    backend.run(MatMul{out, x, weight.get(), KSlices::whole(w.shape[1])});
    return values_of(out);
  }

  static constexpr std::int64_t kRows = 5, kColumns = 384;
  const std::unique_ptr<Checkpoint> checkpoint_ = Checkpoint::open("tests/goldens/step3_text_fp8");
  const MappedFile file_ = MappedFile::open("tests/goldens/step3_text_fp8/expected.safetensors");
  const SafetensorsHeader header_ = parse_safetensors(file_.bytes(), "expected.safetensors");
};

TEST_F(RecordedFp8Layer, CodesAndScalesAreEqualBitForBit) {
  const std::vector<float> x = floats("x");
  for (const auto& backend : {make_reference_backend(), make_cpu_backend({.threads = 2})}) {
    CaseBuilder b(*backend);
    const Tensor in = b.zeros(kRows, kColumns), codes = b.codes(kRows, kColumns), scales = b.zeros(kRows, 3);
    std::memcpy(in.data, x.data(), x.size() * sizeof(float));
    backend->run(QuantiseRows{codes, scales, in});
    EXPECT_EQ(std::memcmp(codes.data, bytes("x_fp8").data(), kRows * kColumns), 0) << backend->describe();
    EXPECT_TRUE(same_bits(values_of(scales), floats("x_scale"))) << backend->describe();
  }
}

TEST_F(RecordedFp8Layer, ProductsAgreeWithAndWithoutRoundedInputs) {
  const std::vector<float> x = floats("x");
  for (const auto& backend : {make_reference_backend(), make_cpu_backend({.threads = 2})}) {
    CaseBuilder b(*backend);
    const Tensor in = b.zeros(kRows, kColumns), codes = b.codes(kRows, kColumns), scales = b.zeros(kRows, 3);
    std::memcpy(in.data, x.data(), x.size() * sizeof(float));
    EXPECT_TRUE(close(product(*backend, in), floats("y_exact_x"), {})) << backend->describe();
    backend->run(QuantiseRows{codes, scales, in});
    backend->run(WidenRows{in, codes, scales});
    EXPECT_TRUE(close(product(*backend, in), floats("y_fp8_x"), {})) << backend->describe();
  }
}

TEST(CachedHeads, HaveAScaleOfEightBitsThatKeepsTheLargestInRange) {
  Rng rng(3);
  for (int i = 0; i < 1000; ++i) {
    const float largest = std::exp(20 * rng.normal()), scale = kv_scale(largest);
    EXPECT_LE(largest / scale, kF8E4M3Max) << largest;
    EXPECT_TRUE(largest < 1e-25f || largest / scale > kF8E4M3Max * (1 - 1.0f / 64)) << largest;
    EXPECT_EQ(bf16_to_f32(f32_to_bf16(scale)), scale);
  }
  EXPECT_EQ(kv_scale(0), 1);
  EXPECT_EQ(kv_scale(448), 1);
}

// What was rounded once stays what it is.
TEST(CachedHeads, AreRoundedOnce) {
  Rng rng(4);
  std::vector<float> x(256), widened(256);
  for (float& value : x) value = rng.normal();
  x[0] = 9;  // the largest is a code's value times a scale of few bits, so the scale comes out again
  std::vector<std::uint8_t> codes(256), again(256);
  const float scale = quantise_head(x.data(), 256, codes.data());
  double error = 0, size = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    widened[i] = f8_e4m3_to_f32(codes[i]) * scale;
    error += std::pow(widened[i] - x[i], 2);
    size += std::pow(x[i], 2);
  }
  EXPECT_LT(std::sqrt(error / size), 0.04);
  const float second = quantise_head(widened.data(), 256, again.data());
  for (std::size_t i = 0; i < x.size(); ++i) EXPECT_EQ(f8_e4m3_to_f32(again[i]) * second, widened[i]) << i;
}

TEST(CachedHeads, KeepNaNAndEndAtInfinity) {
  const float x[] = {1, NAN, -2, -NAN};
  std::uint8_t codes[4];
  const float scale = quantise_head(x, 4, codes);
  EXPECT_EQ(scale, kv_scale(2));
  EXPECT_EQ(codes[1], 0x7f);
  EXPECT_EQ(codes[3], 0x7f);
  EXPECT_NEAR(f8_e4m3_to_f32(codes[0]) * scale, 1, 1.0 / 16);
  const float infinite[] = {INFINITY, 3};
  EXPECT_EQ(quantise_head(infinite, 2, codes), INFINITY);
  EXPECT_EQ(codes[0], 0x7f);
}

}  // namespace
}  // namespace tandem
