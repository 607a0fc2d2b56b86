// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "plan/sparsity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/format.h"
#include "base/json.h"
#include "tests/base/error_of.h"

namespace tandem {
namespace {

// Every printed digit of the paper's Table 7, for 7168 columns and 61 layers.
TEST(SparsityMin, HasEveryDigitOfThePapersTable7) {
  const std::pair<const char*, const char*> rows[] = {
      {"h800", "0.058"}, {"h20", "0.007"}, {"a800", "0.031"}, {"910b", "0.034"}};
  for (const auto& [name, printed] : rows)
    EXPECT_EQ(format("{:.3f}", sparsity_min(find_hardware(name), 7168, 61, {})), printed)
        << "Table 7, row " << name << ", column S";
}

// Section 5.3: rows that keep a dense FFN busy; Step-3's experts need about 3,620 on an H800.
TEST(DenseBatch, IsThePapers) {
  EXPECT_EQ(format("{:.0f}", dense_batch(find_hardware("h800"))), "296");
  EXPECT_EQ(format("{:.0f}", dense_batch(find_hardware("h20"))), "37");
  EXPECT_EQ(format("{:.0f}", dense_batch(find_hardware("a800"))), "78");
  EXPECT_NEAR(dense_batch(find_hardware("910b")), 88, 0.51);
  EXPECT_NEAR(check_sparsity(find_shape("step3"), find_hardware("h800"), {}).batch, 3620, 5);
}

TEST(CheckSparsity, SaysWhatAModelWouldHaveToChange) {
  const Hardware h800 = find_hardware("h800");
  const SparsityAnswer step3 = check_sparsity(find_shape("step3"), h800, {});
  EXPECT_NEAR(step3.sparsity, 4.0 / 49, 1e-12);
  EXPECT_TRUE(step3.holds());
  // 40 of 50 GB/s move the bound to 0.073; 4 of 49 still hold.
  const SparsityAnswer deepep = check_sparsity(find_shape("step3"), h800, {.network_efficiency = 0.8});
  EXPECT_EQ(format("{:.3f}", deepep.sparsity_min), "0.073");
  EXPECT_TRUE(deepep.holds());
  // Section 5.4: DeepSeek-V3, 9 of 257, would need 14 routed experts beside its shared one.
  const SparsityAnswer dsv3 = check_sparsity(find_shape("deepseek_v3"), h800, {});
  EXPECT_NEAR(dsv3.sparsity, 9.0 / 257, 1e-12);
  EXPECT_FALSE(dsv3.holds());
  EXPECT_NEAR(dsv3.active_needed - 1, 14, 0.1);
  EXPECT_TRUE(check_sparsity(find_shape("deepseek_v3"), find_hardware("h20"), {}).holds());
  // Kimi K2 is further off, and pays more than double.
  const SparsityAnswer k2 = check_sparsity(find_shape("kimi_k2"), h800, {});
  EXPECT_GT(k2.slower(), dsv3.slower());
  EXPECT_GT(k2.slower(), 2);
  EXPECT_EQ(check_sparsity(find_shape("qwen3_32b"), h800, {}).sparsity, 1);
}

TEST(CheckSparsity, ATurnTwiceAsLongMayBeTwiceAsSparse) {
  const Hardware h = find_hardware("h800");
  EXPECT_NEAR(sparsity_min(h, 7168, 61, {.tpot = 0.1}), sparsity_min(h, 7168, 61, {}) / 2, 1e-12);
  EXPECT_EQ(error_of([&] { sparsity_min(h, 7168, 61, {.tpot = 0}); }).message(),
            "time per token is 0 ms, has to be between 0.01 ms and an hour");
  EXPECT_EQ(error_of([&] { sparsity_min(h, 7168, 61, {.network_efficiency = 2}); }).message(),
            "efficiency of the network is 2, has to be between 0.001 and 1");
}

TEST(SparsityText, AndJsonHaveALineForEachPair) {
  const std::vector<ModelShape> models{find_shape("step3"), find_shape("deepseek_v3")};
  const std::vector<Hardware> hardware{find_hardware("h800")};
  const std::string text = sparsity_text(models, hardware, {});
  EXPECT_THAT(text, testing::HasSubstr("4 of 49     0.082     0.058      3620  keeps up\n"));
  EXPECT_THAT(text,
              testing::HasSubstr(
                  "9 of 257     0.035     0.058      8439  link 1.66x too slow: 15 active of 257, or 154 in all\n"));
  const std::string json = sparsity_json(models, hardware, {});
  EXPECT_EQ(std::ranges::count(json, '\n'), 2);
  const Json line = parse_json(json.substr(0, json.find('\n')), "line");
  EXPECT_EQ(line["model"].get<std::string>(), "Step-3");
  EXPECT_TRUE(line["holds"].get<bool>());
}

}  // namespace
}  // namespace tandem
