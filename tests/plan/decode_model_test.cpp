// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The published deployments of Step-3 (paper, sections 6 and 7): what the model says of them on ideal hardware.
#include "plan/decode_model.h"

#include <gtest/gtest.h>

#include "base/format.h"
#include "plan/deployment_search.h"
#include "tests/base/error_of.h"
#include "tests/plan/stage_rows.h"

namespace tandem {
namespace {

constexpr double kStage = 0.05 / 3 / 61;  // 273 us: a layer's turn of one stage

DecodeSettings settings(const char* attention, const char* ffn, std::int64_t context, DType kv = DType::kF8E4M3) {
  DecodeSettings s{
      .context = context, .precision = {}, .attention = find_hardware(attention), .ffn = find_hardware(ffn)};
  s.precision.kv = kv;
  return s;
}

DecodeModel step3(const DecodeSettings& s) {
  return DecodeModel(find_shape("step3"), s);
}

const LayerLoad& routed(const DecodeModel& model) {
  return model.kinds()[1];
}

double tokens_per_gpu(const DecodeModel& model, const Candidate& c, double rows) {
  return model.tokens_per_second(c, rows) / (model.attention_gpus(c) + model.ffn_gpus(c));
}

TEST(DecodeModel, HasTheWorkOf2A2F) {
  const DecodeModel model = step3(settings("h800", "h800", 4096));
  const Candidate c{2, 2, 3, 8};
  // Section 10.5 of the specification: 128 rows on an attention GPU read 268 MB of KV in 80 us; projections take 51 us;
  // 330 MB of routed experts lie on an FFN GPU, which takes 99 us to read.
  EXPECT_NEAR(128 * routed(model).kv_bytes, 268e6, 1e6);
  EXPECT_NEAR(128 * routed(model).kv_bytes / 3.35e12, 80e-6, 0.5e-6);
  EXPECT_NEAR(routed(model).projection_bytes / 3.35e12, 51e-6, 0.5e-6);
  EXPECT_NEAR(routed(model).routed_bytes / 16, 330e6, 1e6);
  EXPECT_NEAR(routed(model).routed_bytes / 16 / 3.35e12, 99e-6, 1e-6);
  EXPECT_EQ(model.expert_parallel(c), 2);
  const StageTimes t = model.stages(c, routed(model), 128);
  EXPECT_LE(t.attention, kStage);
  EXPECT_LE(t.ffn, kStage);
  // No bubble: the two transfers fit into one turn.
  EXPECT_LE(t.to_ffn + t.to_attention, kStage);
  EXPECT_FALSE(t.bubbles(3));
  // StepMesh's introduction: a tensor of 896 KiB takes 18 us and one of 1.75 MiB 37 us; each GPU has two of them.
  EXPECT_NEAR(t.to_ffn / 2, 18.4e-6, 0.1e-6);
  EXPECT_NEAR(t.to_attention / 2, 36.7e-6, 0.1e-6);
  // Both ways together at the full turn of 273 us: 161.3 Gb/s.
  EXPECT_NEAR((t.to_ffn + t.to_attention) * 50e9 * 8 / kStage, 161.3e9, 0.2e9);
}

// Table 8: the published batches fit and keep 50 ms; what was measured is below what ideal hardware would do.
TEST(DecodeModel, HoldsThePublishedDeployments) {
  struct Row {
    const char* what;
    std::int64_t context;
    DType kv;
    Candidate c;
    double rows, measured;  // tokens/s/GPU
    double efficiency;      // that the measurement implies
  };
  const Row rows[] = {
      {"2A2F", 4096, DType::kF8E4M3, {2, 2, 3, 8}, 128, 4039, 0.518},
      {"3A2F in bf16", 4096, DType::kBF16, {3, 2, 3, 8}, 84, 3321, 0.638},
      {"4A2F", 8192, DType::kF8E4M3, {4, 2, 3, 8}, 64, 2643, 0.505},
  };
  for (const Row& row : rows) {
    DecodeSettings s = settings("h800", "h800", row.context, row.kv);
    s.memory_fraction = 0.99;  // 3A2F: 252 sequences of 4096 tokens in bf16 are 64.5 GB
    const DecodeModel model = step3(s);
    EXPECT_LE(3 * row.rows, model.sequences_max()) << row.what;
    EXPECT_LE(model.ffn_weight_bytes(row.c), model.usable_bytes(s.ffn)) << row.what;
    EXPECT_LE(model.tpot(row.c, row.rows), 0.05) << row.what;
    EXPECT_NEAR(row.measured / tokens_per_gpu(model, row.c, row.rows), row.efficiency, 0.005) << row.what;
    // Measured tokens and batch make the step time that the table implies, within 50 ms.
    const double step = 3 * row.rows * model.attention_gpus(row.c) / row.measured /
                        (model.attention_gpus(row.c) + model.ffn_gpus(row.c));
    EXPECT_GT(step, 0.045) << row.what;
    EXPECT_LT(step, 0.05) << row.what;
  }
}

// Section 7.3: twice the context wants twice the attention; time and link stay, and tokens/s/GPU fall as the GPUs grow:
// 4A2F at 8K makes 4/6 of 2A2F (2,693), 16A2F at 32K 4/18 (898).
TEST(DecodeModel, AttentionGrowsWithTheContextAndTheFfnStays) {
  const DecodeModel at_4k = step3(settings("h800", "h800", 4096)), at_8k = step3(settings("h800", "h800", 8192)),
                    at_32k = step3(settings("h800", "h800", 32768));
  const Candidate a2{2, 2, 3, 8}, a4{4, 2, 3, 8}, a16{16, 2, 3, 8};
  EXPECT_NEAR(at_8k.tpot(a4, 64), at_4k.tpot(a2, 128), 0.5e-3);
  EXPECT_NEAR(at_32k.tpot(a16, 16), at_4k.tpot(a2, 128), 0.5e-3);
  EXPECT_EQ(at_8k.stages(a4, routed(at_8k), 64).to_ffn, at_4k.stages(a2, routed(at_4k), 128).to_ffn);
  const double base = tokens_per_gpu(at_4k, a2, 128);
  EXPECT_NEAR(4039 * tokens_per_gpu(at_8k, a4, 64) / base, 2693, 27);
  EXPECT_NEAR(4039 * tokens_per_gpu(at_32k, a16, 16) / base, 898, 9);
  EXPECT_LE(at_32k.tpot(a16, 16), 0.05);
}

// Section 7.3: with twice the FFN on four servers the link, which carries every row to each server, allows 3,072 rows.
TEST(DecodeModel, TheLinkBinds3A4F) {
  ModelShape twice = find_shape("step3");
  for (LayerRun& run : twice.runs)
    if (run.layer.ffn.routed()) run.layer.ffn.experts *= 2;
  const DecodeModel model(twice, settings("h800", "h800", 4096));
  EXPECT_GT(twice.parameters(), 600e9);
  const Candidate c{3, 4, 3, 8};
  const StageTimes t = model.stages(c, routed(model), 128);
  EXPECT_NEAR(128 * model.attention_gpus(c), 3072, 0.5);
  EXPECT_LE(t.to_ffn + t.to_attention, kStage);
  EXPECT_GT((t.to_ffn + t.to_attention) * 1.25, kStage);  // a quarter more rows would not pass
  EXPECT_EQ(t.slowest(), t.to_attention);
  EXPECT_LE(model.tpot(c, 128), 0.05);
  // 3 x 3,072 rows in 50 ms on 56 GPUs: 3,291 tokens/s/GPU.
  EXPECT_NEAR(3 * 3072 / 0.05 / (model.attention_gpus(c) + model.ffn_gpus(c)), 3291, 1);
  EXPECT_GT(tokens_per_gpu(model, c, 128), 3291);
}

// Section 6: attention on L20 with the output projection shared in a server, and on L4.
TEST(DecodeModel, L20CanDoAttentionAndL4CanNot) {
  DecodeSettings s = settings("l20", "h800", 8192);
  s.output_parallel = 8;
  const DecodeModel l20 = step3(s);
  EXPECT_NEAR(routed(l20).projection_bytes, 66.6e6, 0.5e6);
  EXPECT_NEAR(272e-6 * 864e9, 235e6, 0.5e6);
  const double tokens = (235e6 - routed(l20).projection_bytes) / (routed(l20).kv_bytes / 8192);
  EXPECT_NEAR(tokens, 328e3, 3e3);
  EXPECT_NEAR(tokens / 8192, 41, 1);
  const Candidate c{4, 2, 3, 8};
  EXPECT_LE(l20.stages(c, routed(l20), 40).attention, kStage);
  EXPECT_GT(l20.stages(c, routed(l20), 42).attention, kStage);
  s.attention = find_hardware("l4");
  const DecodeModel l4 = step3(s);
  EXPECT_GT(routed(l4).projection_bytes / s.attention.memory_bandwidth, 0.8 * kStage);
  EXPECT_LT(kStage, l4.stages(c, routed(l4), 4).attention);
  // Without sharing not even an L20's turn is long enough for the weights to leave room for KV worth having.
  EXPECT_GT(routed(step3(settings("l20", "h800", 8192))).projection_bytes / 864e9, 0.6 * kStage);
}

// Section 6: at half its bandwidth an L20 reads 117 MB a layer, so six servers hold and read the experts, and five do
// not.
TEST(DecodeModel, SixServersOfL20DoTheFfn) {
  DecodeSettings s = settings("h800", "l20", 4096);
  s.efficiency.ffn = 0.5;
  const DecodeModel model = step3(s);
  const double rows = 8;  // few enough for reading, not arithmetic, to bind
  const auto turn = [&](std::int32_t servers) { return model.stages({2, servers, 3, 8}, routed(model), rows).ffn; };
  EXPECT_NEAR(kStage * 864e9 * 0.5, 117e6, 1.5e6);
  const double all = routed(model).routed_bytes + routed(model).shared_bytes;
  EXPECT_LE(all / 48, 117e6);
  EXPECT_GT(all / 40, 117e6);
  // The paper spreads the shared expert over all 48 cards; here eight of them hold a slice of it, and are 5 % over.
  EXPECT_LE(turn(6), kStage * 1.05);
  EXPECT_GT(turn(5), kStage * 1.2);
  EXPECT_NEAR(117e6 * 61 * 8, 56.8e9, 0.5e9);
  // L4: a third of the bandwidth; the 48 cards that are enough L20 are not, nor is twice as many.
  s.ffn = find_hardware("l4");
  const DecodeModel l4 = step3(s);
  for (const std::int32_t servers : {6, 12})
    EXPECT_GT(l4.stages({2, servers, 3, 8}, routed(l4), rows).ffn, kStage) << servers;
}

TEST(DecodeModel, AWorkerThatHoldsMoreExpertsSetsThePace) {
  const DecodeModel model = step3(settings("h800", "h800", 4096));
  // 48 experts over five groups: one has ten.
  const Candidate five{2, 5, 3, 8}, six{2, 6, 3, 8};
  EXPECT_NEAR(model.ffn_weight_bytes(five) * 40 / 10, model.ffn_weight_bytes(six) * 48 / 8 * 0.8,
              0.1 * model.ffn_weight_bytes(five) * 40 / 10);
  EXPECT_TRUE(model.fits_model(five));
  EXPECT_FALSE(model.fits_model({2, 7, 3, 1}));   // 56 groups of 48 experts
  EXPECT_FALSE(model.fits_model({2, 2, 3, 3}));   // no power of two
  EXPECT_FALSE(model.fits_model({2, 2, 3, 16}));  // more slices than there are
  ModelShape narrow = find_shape("step3");
  for (LayerRun& run : narrow.runs)
    if (run.layer.ffn.routed()) run.layer.ffn.expert_width = 3 * 128 + 1;
  EXPECT_EQ(narrow.expert_width(), 385);
  const DecodeModel four_blocks(narrow, settings("h800", "h800", 4096));
  EXPECT_TRUE(four_blocks.fits_model({2, 2, 3, 4}));
  EXPECT_FALSE(four_blocks.fits_model({2, 2, 3, 8}));
}

TEST(DecodeModel, ExpertsThatNobodyChoseAreNotRead) {
  const DecodeModel model = step3(settings("h800", "h800", 4096));
  DecodeSettings tiny = settings("h800", "h800", 4096);
  tiny.attention.gpus_per_server = 1;
  const DecodeModel one = step3(tiny);
  const Candidate c{1, 2, 3, 8};
  const double all = routed(one).routed_bytes / 16, shared = routed(one).shared_bytes / 8;
  EXPECT_NEAR(one.stages(c, routed(one), 1).ffn, (all * 3 / 48 + shared) / 3.35e12, 1e-9);
  EXPECT_NEAR(one.stages(c, routed(one), 1000).ffn, (all + shared) / 3.35e12, 2e-6);
}

DecodeSettings measured_settings() {
  DecodeSettings s = settings("h200", "h200", 4096);
  s.attention_ladders = s.ffn_ladders = std::make_shared<const StageLadders>(stage_rows(), "k.jsonl");
  return s;
}

TEST(DecodeModel, TakesTheStagesThatWereMeasured) {
  const DecodeModel model = step3(measured_settings());
  const Candidate c{2, 2, 3, 1};
  EXPECT_TRUE(model.is_measured());
  EXPECT_FALSE(step3(settings("h200", "h200", 4096)).is_measured());
  const StageTimes t = model.stages(c, routed(model), 64);  // 1,024 rows at the FFN
  EXPECT_NEAR(t.attention, 25e-6, 1e-12);
  EXPECT_NEAR(t.attention_alone, 55e-6, 1e-12);
  EXPECT_NEAR(t.ffn, 43e-6, 1e-12);
  EXPECT_NEAR(t.ffn_alone, 86e-6, 1e-12);
  // The link is not among them.
  EXPECT_EQ(t.to_ffn, step3(settings("h200", "h200", 4096)).stages(c, routed(model), 64).to_ffn);
  EXPECT_EQ(model.measured_rows(c), (std::vector<double>{64, 128, 64, 128}));
  // A step is longer by less than all heads together: others work meanwhile.
  EXPECT_GT(model.head_seconds(c, 64), 0);
  EXPECT_LE(model.head_seconds(c, 64), 3 * 4e-6);
  // Only layouts that were measured: whole experts over 16 GPUs.
  EXPECT_TRUE(model.fits_model(c));
  EXPECT_FALSE(model.fits_model({2, 2, 3, 8}));
  EXPECT_FALSE(model.fits_model({2, 1, 3, 1}));
  // Attention alone measured: the FFN stays a roofline, cut as one likes.
  DecodeSettings half = measured_settings();
  half.ffn_ladders = nullptr;
  EXPECT_TRUE(step3(half).fits_model({2, 1, 3, 8}));
  EXPECT_EQ(step3(half).stages({2, 1, 3, 8}, routed(model), 64).ffn,
            step3(settings("h200", "h200", 4096)).stages({2, 1, 3, 8}, routed(model), 64).ffn);
}

// Never less than the stages' rule, which is all that rooflines have.
TEST(DecodeModel, StepsOfMeasuredStagesAreSimulated) {
  const DecodeModel measured = step3(measured_settings()), ideal = step3(settings("h200", "h200", 4096));
  for (const std::int32_t micro_batches : {1, 2, 3, 4, 8})
    for (const double rows : {16., 64., 100., 128.}) {
      const Candidate c{2, 2, micro_batches, 1};
      EXPECT_EQ(ideal.tpot(c, rows), ideal.tpot_min(c, rows));
      EXPECT_GE(measured.tpot(c, rows), measured.tpot_min(c, rows));
      EXPECT_LT(measured.tpot(c, rows), 1.3 * measured.tpot_min(c, rows)) << micro_batches << " x " << rows;
    }
  // One alone waits for nobody: at 64 rows 56 layers of 55 + 86 us, five dense ones of 54.1 + 64, the head; and links.
  const Candidate alone{2, 2, 1, 1};
  const StageTimes t = measured.stages(alone, routed(measured), 96);
  const double links = 61 * (t.to_ffn + t.to_attention);
  const double waits_for_nobody = 96 / 64. * (56 * 141e-6 + 5 * 118.1e-6 + 4e-6) + links;
  EXPECT_NEAR(measured.tpot(alone, 96), waits_for_nobody, 1e-3 * waits_for_nobody);  // rows are drawn
  // One side measured: the other is a stage without pieces.
  DecodeSettings half = measured_settings();
  half.attention_ladders = nullptr;
  EXPECT_GE(step3(half).tpot({2, 2, 3, 1}, 64), step3(half).tpot_min({2, 2, 3, 1}, 64));
}

// Stages measured at the power limit take turns; micro-batches wait for each other at the full clock.
TEST(DecodeModel, AStepIsTheLongerOfTurnsAndOfWaiting) {
  const auto with_clock = [](double clock) {
    std::vector<StageKernel> rows = stage_rows();
    for (StageKernel& k : rows) k.clock = clock;
    DecodeSettings s = settings("h200", "h200", 4096);
    s.attention_ladders = s.ffn_ladders = std::make_shared<const StageLadders>(rows, "k.jsonl");
    return step3(s);
  };
  const DecodeModel full = with_clock(1), nearly = with_clock(.97), half = with_clock(.5);
  const Candidate c{2, 2, 2, 1};
  const double turns = full.tpot_min(c, 96);
  EXPECT_EQ(half.tpot_min(c, 96), turns);
  EXPECT_EQ(half.tpot(c, 96), turns);
  EXPECT_GT(nearly.tpot(c, 96), turns);
  EXPECT_LT(nearly.tpot(c, 96), full.tpot(c, 96));
}

// Without a difference between alone and busy it is the paper's rule.
TEST(StageTimes, APeriodIsTheSlowestTurnOrTheRound) {
  const StageTimes t{.attention = 3, .to_ffn = 1, .ffn = 2, .to_attention = 2, .attention_alone = 3, .ffn_alone = 2};
  EXPECT_EQ(t.period(3), 9);
  EXPECT_FALSE(t.bubbles(3));
  EXPECT_EQ(t.period(2), 8);  // the round
  EXPECT_TRUE(t.bubbles(2));
  EXPECT_EQ(t.bubble(2), 2);
}

// Micro-batches that share the attention GPU: two beside each other are done in 10, one alone in 8.
TEST(StageTimes, MicroBatchesBesideEachOtherTakeTurnsAndHideGaps) {
  StageTimes t{.attention = 5, .to_ffn = 1, .ffn = 4, .to_attention = 1, .attention_alone = 8, .ffn_alone = 4};
  EXPECT_EQ(t.round(), 14);
  EXPECT_EQ(t.period(1), 14);
  EXPECT_EQ(t.period(4), 20);  // always two of them in A
  // Three: in A are u = 3 - 6 · x on average, done at the rate x. Between one and two, x = 1/8 + (u - 1) · (1/5 - 1/8).
  const double x = (1 / 8. + 2 * (1 / 5. - 1 / 8.)) / (1 + 6 * (1 / 5. - 1 / 8.));
  EXPECT_NEAR(t.period(3), 3 / x, 1e-12);
  EXPECT_GT(t.period(3), 15);
  // More waiting elsewhere is never faster, and less overlap neither.
  double last = 0;
  for (int i = 0; i < 60; ++i) {
    t.to_ffn = 0.5 * i;
    EXPECT_GE(t.period(3), last);
    last = t.period(3);
  }
  last = 0;
  t.to_ffn = 1;
  for (int i = 0; i < 50; ++i) {
    t.attention_alone = 5 + 0.5 * i;
    EXPECT_GE(t.period(3), last);
    last = t.period(3);
  }
}

TEST(DecodeModel, SettingsThatMakeNoSenseAreRefused) {
  const auto error = [](auto change) {
    DecodeSettings s = settings("h800", "h800", 4096);
    change(s);
    return error_of([&] { step3(s); }).message();
  };
  EXPECT_EQ(error([](DecodeSettings& s) { s.context = 0; }), "context has to be at least one token");
  EXPECT_EQ(error([](DecodeSettings& s) { s.efficiency.ffn = 0; }),
            "efficiency of the FFN is 0, has to be between 0.001 and 1");
  EXPECT_EQ(error([](DecodeSettings& s) { s.efficiency.network = 1.5; }),
            "efficiency of the network is 1.5, has to be between 0.001 and 1");
  EXPECT_EQ(error([](DecodeSettings& s) { s.memory_fraction = -1; }),
            "fraction of memory is -1, has to be between 0.001 and 1");
  EXPECT_EQ(error([](DecodeSettings& s) { s.output_parallel = 9; }),
            "output_parallel is 9, has to be between 1 and 8, the GPUs of a server");
}

}  // namespace
}  // namespace tandem
