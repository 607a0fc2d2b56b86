// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "plan/accounting.h"

#include <gtest/gtest.h>

#include "plan/cost_report.h"

namespace tandem {
namespace {

// Every printed digit of the paper's Tables 2 (8192) and 3 (32768).
struct PaperRow {
  const char* model;
  const char *kv_8k, *attention_8k, *kv_32k, *attention_32k, *linear, *ffn;
};
constexpr PaperRow kPaper[] = {
    {"deepseek_v3", "2.88e8", "1.47e11", "1.15e9", "5.89e11", "2.28e10", "4.84e10"},
    {"kimi_k2", "2.88e8", "7.37e10", "1.15e9", "2.95e11", "1.23e10", "4.84e10"},
    {"qwen3_235b", "7.89e8", "2.52e10", "3.15e9", "1.01e11", "1.34e10", "2.84e10"},
    {"qwen3_32b", "1.07e9", "1.72e10", "4.29e9", "6.87e10", "1.21e10", "5.03e10"},
    {"llama4_maverick", "1.01e9", "8.05e9", "2.21e9", "1.41e10", "6.04e9", "2.42e10"},
    {"minimax_m1", "9.23e8", "3.42e9", "1.93e9", "1.15e10", "3.75e10", "5.44e10"},
    {"ernie_4_5", "9.06e8", "1.45e10", "3.62e9", "5.80e10", "1.63e10", "7.61e10"},
    {"pangu_pro", "8.05e8", "8.05e9", "3.22e9", "3.22e10", "6.04e9", "2.38e10"},
    {"step3", "2.56e8", "3.27e10", "1.02e9", "1.31e11", "2.07e10", "5.33e10"},
};

TEST(TokenWork, HasEveryDigitOfThePapersTables2And3) {
  ASSERT_EQ(std::size(kPaper), shape_names().size());
  for (const PaperRow& row : kPaper) {
    const ModelShape shape = find_shape(row.model);
    const TokenWork at_8k = token_work(shape, 8192), at_32k = token_work(shape, 32768);
    const auto expect = [&](const char* table, const char* column, double found, const char* printed) {
      EXPECT_EQ(three_digits(found), printed) << table << ", row " << shape.name << ", column " << column;
    };
    expect("Table 2", "KV", at_8k.kv_bytes, row.kv_8k);
    expect("Table 2", "attention FLOPs", at_8k.attention_flops, row.attention_8k);
    expect("Table 2", "linear FLOPs", at_8k.linear_flops, row.linear);
    expect("Table 2", "FFN FLOPs", at_8k.ffn_flops, row.ffn);
    expect("Table 3", "KV", at_32k.kv_bytes, row.kv_32k);
    expect("Table 3", "attention FLOPs", at_32k.attention_flops, row.attention_32k);
    expect("Table 3", "linear FLOPs", at_32k.linear_flops, row.linear);
    expect("Table 3", "FFN FLOPs", at_32k.ffn_flops, row.ffn);
  }
}

// The paper's section 5.1, and what follows from its formulas for the other models.
TEST(TokenWork, HasThePapersArithmeticIntensities) {
  const auto intensity = [](const char* model) {
    const TokenWork work = token_work(find_shape(model), 8192);
    return work.attention_flops / work.kv_bytes;
  };
  EXPECT_EQ(intensity("step3"), 128);
  EXPECT_EQ(intensity("deepseek_v3"), 512);
  EXPECT_EQ(intensity("qwen3_235b"), 32);
  EXPECT_EQ(intensity("kimi_k2"), 256);
  EXPECT_EQ(intensity("qwen3_32b"), 16);
  EXPECT_EQ(intensity("ernie_4_5"), 16);
  EXPECT_EQ(intensity("pangu_pro"), 10);
}

TEST(TokenWork, CountsEverythingThatRunsWhenAskedTo) {
  const ModelShape shape = find_shape("deepseek_v3");
  const TokenWork paper = token_work(shape, 4096);
  const TokenWork all = token_work(shape, 4096, {Accounting::kOperators, {}});
  // The latent is 512 wide as a value and 576 as a key; the paper takes 576 for both.
  EXPECT_DOUBLE_EQ(all.attention_flops / paper.attention_flops, (576 + 512) / 1152.0);
  EXPECT_EQ(all.kv_bytes, paper.kv_bytes + 61.0 * 4096 * sizeof(float));  // a token's scale in each layer
  const double router = 2.0 * 58 * 256 * 7168;
  EXPECT_GT(all.linear_flops, paper.linear_flops + router);
  EXPECT_GT(all.ffn_flops, paper.ffn_flops);
  EXPECT_LT(all.ffn_flops, paper.ffn_flops * 1.01);
}

TEST(TokenWork, TheCacheOfAModelThatLeavesItOpenIsAsAsked) {
  AccountingOptions bf16;
  bf16.precision.kv = DType::kBF16;
  const ModelShape step3 = find_shape("step3"), llama4 = find_shape("llama4_maverick");
  EXPECT_EQ(token_work(step3, 8192, bf16).kv_bytes, 2 * token_work(step3, 8192).kv_bytes);
  const double chunked = 36.0 * 2 * 8 * 128 * 8192, full = 12.0 * 2 * 8 * 128 * 2 * 8192;
  EXPECT_EQ(token_work(llama4, 8192).kv_bytes, chunked + full);
  EXPECT_EQ(token_work(llama4, 8192, bf16).kv_bytes, 2 * chunked + full);
}

}  // namespace
}  // namespace tandem
