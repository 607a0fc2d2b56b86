// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The pieces of a layer against plain loops in double, and their shares against the whole, bit for bit.
#include "model/layer_pieces.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>

#include "base/rng.h"
#include "ops/forwarding.h"
#include "ops/reference/reference_backend.h"
#include "tests/base/error_of.h"
#include "tests/model/split_run.h"
#include "tests/model/synthetic_checkpoint.h"

namespace tandem {
namespace {

using testing::Each;
using testing::ElementsAreArray;
using testing::FloatNear;
using testing::Pointwise;

constexpr std::int64_t kHidden = 48, kExperts = 6, kExpertWidth = 33;

std::vector<float> values_of(const Tensor& tensor) {
  return {tensor.f32(), tensor.f32() + tensor.shape.elements()};
}

void fill_normal(const Tensor& tensor, std::uint64_t seed) {
  Rng rng(seed);
  for (std::int64_t i = 0; i < tensor.shape.elements(); ++i) tensor.f32()[i] = rng.normal();
}

void fill(const Tensor& tensor, float value) {
  std::fill_n(tensor.f32(), tensor.shape.elements(), value);
}

// Matrices of a gated FFN: [width, hidden] twice and [hidden, width], one after the other for each expert.
struct PlainFfn {
  std::vector<float> gate, up, down;
  std::int64_t width;

  // down(silu(gate(x)) · up(x)) of one row, by expert e.
  std::vector<double> operator()(const float* x, std::int64_t e = 0) const {
    std::vector<double> activated(width), out(kHidden);
    for (std::int64_t i = 0; i < width; ++i) {
      double g = 0, u = 0;
      for (std::int64_t j = 0; j < kHidden; ++j) {
        g += static_cast<double>(gate[(e * width + i) * kHidden + j]) * x[j];
        u += static_cast<double>(up[(e * width + i) * kHidden + j]) * x[j];
      }
      activated[i] = g / (1 + std::exp(-g)) * u;
    }
    for (std::int64_t i = 0; i < kHidden; ++i)
      for (std::int64_t j = 0; j < width; ++j) out[i] += down[(e * kHidden + i) * width + j] * activated[j];
    return out;
  }
};

PlainFfn plain(const SyntheticTensors& tensors, std::int64_t width) {
  return {synthetic_values(tensors[0]), synthetic_values(tensors[1]), synthetic_values(tensors[2]), width};
}

const GatedFfnNames kNames{"gate", "up", "down"};

SyntheticTensors dense_tensors(std::int64_t width) {
  return {{"gate", {width, kHidden}}, {"up", {width, kHidden}}, {"down", {kHidden, width}}};
}

class LayerPiecesTest : public testing::Test {
 protected:
  const std::unique_ptr<Backend> backend_ = checked_reference();
  Arena tensors_{*backend_, 4 << 20};
  Arena scratch_{*backend_, 4 << 20};
  const Workspace w_{*backend_, scratch_};
};

// ---- norms and head

class StreamTest : public LayerPiecesTest {
 protected:
  static constexpr std::int64_t kRows = 4;

  StreamTest() {
    norm_.values = backend_->allocate(kHidden * sizeof(float));
    norm_.elements = kHidden;
    fill_normal(norm_.tensor(), 3);
    fill_normal(residual_.stream, 1);
    fill_normal(residual_.ffn, 2);
  }
  // rms_norm(stream + add · ffn) of one row.
  std::vector<float> normalised(const std::vector<float>& stream, float add, std::int64_t row) const {
    std::vector<double> x(kHidden);
    double squares = 0;
    for (std::int64_t i = 0; i < kHidden; ++i) {
      x[i] = stream[row * kHidden + i] + add * residual_.ffn.row<float>(row)[i];
      squares += x[i] * x[i];
    }
    std::vector<float> out;
    for (std::int64_t i = 0; i < kHidden; ++i)
      out.push_back(static_cast<float>(x[i] / std::sqrt(squares / kHidden + 0.25) * norm_.tensor().f32()[i]));
    return out;
  }

  NormWeight norm_;
  Residual residual_{tensors_.f32(kRows, kHidden), tensors_.f32(kRows, kHidden)};
};

TEST_F(StreamTest, the_first_layer_only_normalises) {
  const std::vector<float> before = values_of(residual_.stream);
  const Tensor out = tensors_.f32(kRows, kHidden);
  enter_layer(w_, residual_, norm_, 0.25f, out);
  for (std::int64_t r = 0; r < kRows; ++r)
    EXPECT_THAT(values_of(out.slice_rows(r, 1)), Pointwise(FloatNear(1e-5f), normalised(before, 0, r)));
  EXPECT_EQ(values_of(residual_.stream), before);
}

TEST_F(StreamTest, a_later_layer_adds_what_the_experts_left) {
  const std::vector<float> before = values_of(residual_.stream);
  const Tensor out = tensors_.f32(kRows, kHidden);
  residual_.has_ffn = true;
  enter_layer(w_, residual_, norm_, 0.25f, out);
  for (std::int64_t r = 0; r < kRows; ++r)
    EXPECT_THAT(values_of(out.slice_rows(r, 1)), Pointwise(FloatNear(1e-5f), normalised(before, 1, r)));
  std::vector<float> sum = before;
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += residual_.ffn.f32()[i];
  EXPECT_EQ(values_of(residual_.stream), sum);
}

TEST_F(StreamTest, logits_are_those_of_the_rows_asked_for) {
  constexpr std::int64_t kVocab = 21;
  const SyntheticTensors head{{"head", {kVocab, kHidden}}};
  const SyntheticCheckpoint checkpoint(Json::object(), head);
  WeightReader reader(*checkpoint, *backend_, {});
  const auto weight = reader.matrix(Part::kHead, {{.name = "head", .shape = {kVocab, kHidden}}});
  const std::vector<float> rows_of_head = synthetic_values(head[0]), before = values_of(residual_.stream);
  residual_.has_ffn = true;

  RowBatch batch;
  batch.logit_rows = tensors_.i32(3);
  const std::int32_t wanted[] = {3, 0, 3};
  std::copy_n(wanted, 3, batch.logit_rows.as<std::int32_t>());
  const Tensor logits = tensors_.f32(3, kVocab);
  final_logits(w_, batch, residual_, norm_, 0.25f, *weight, logits);
  for (std::int64_t r = 0; r < 3; ++r) {
    const std::vector<float> x = normalised(before, 1, wanted[r]);
    for (std::int64_t v = 0; v < kVocab; ++v) {
      double expected = 0;
      for (std::int64_t i = 0; i < kHidden; ++i) expected += x[i] * static_cast<double>(rows_of_head[v * kHidden + i]);
      EXPECT_NEAR(logits.row<float>(r)[v], expected, 1e-5) << "row " << r << ", token " << v;
    }
  }
  EXPECT_EQ(values_of(logits.slice_rows(0, 1)), values_of(logits.slice_rows(2, 1))) << "the same row twice";
  EXPECT_EQ(values_of(residual_.stream), before) << "the stream is as it was";
}

TEST_F(StreamTest, no_logits_are_made_for_no_rows) {
  const SyntheticCheckpoint checkpoint(Json::object(), {{"head", {5, kHidden}}});
  WeightReader reader(*checkpoint, *backend_, {});
  const auto weight = reader.matrix(Part::kHead, {{.name = "head", .shape = {5, kHidden}}});
  RowBatch batch;
  batch.logit_rows = tensors_.i32(0);
  const Tensor logits = tensors_.f32(1, 5);
  fill(logits, 7);
  final_logits(w_, batch, residual_, norm_, 0.25f, *weight, logits.slice_rows(0, 0));
  EXPECT_THAT(values_of(logits), Each(7.0f));
}

// ---- gated FFN

// 64 and 33 have fewer blocks of 32 than there are slices, so some workers hold a share without columns.
TEST_F(LayerPiecesTest, shares_of_a_gated_ffn_add_up_to_the_bits_of_the_whole) {
  constexpr std::int64_t kRows = 5;
  const Tensor x = tensors_.f32(kRows, kHidden);
  fill_normal(x, 11);
  for (const std::int64_t width : {256, 80, 64, 33, 1}) {
    Arena::Scope of_width(tensors_);
    const SyntheticTensors stored = dense_tensors(width);
    const SyntheticCheckpoint checkpoint(Json::object(), stored);
    WeightReader reader(*checkpoint, *backend_, {});
    const GatedFfn all = load_gated_ffn(reader, Part::kDenseFfn, kNames, kHidden, width, 0, KSlices::kCountMax);
    ASSERT_EQ(all.width, width);
    const Tensor whole = tensors_.f32(kRows, kHidden), combined = tensors_.f32(kRows, kHidden);
    run_gated_ffn(w_, all, x, whole);
    for (std::int64_t r = 0; r < kRows; ++r)
      EXPECT_THAT(values_of(whole.slice_rows(r, 1)),
                  Pointwise(testing::DoubleNear(1e-5), plain(stored, width)(x.row<float>(r))));

    for (std::int32_t count = 1; count <= KSlices::kCountMax; ++count) {
      SCOPED_TRACE(testing::Message() << "width " << width << ", " << count << " workers");
      Arena::Scope of_count(tensors_);
      std::vector<Tensor> partials;
      std::vector<std::int32_t> slice_counts;
      std::int64_t columns = 0;
      for (std::int32_t i = 0; i < count; ++i) {
        const FfnShare share = ffn_share(i, count, 0);
        const GatedFfn part =
            load_gated_ffn(reader, Part::kDenseFfn, kNames, kHidden, width, share.slice_first, share.slice_count);
        columns += part.width;
        slice_counts.push_back(share.slice_count);
        partials.push_back(tensors_.f32(kRows, kHidden));
        fill(partials.back(), NAN);  // a share without columns must still write its zeros
        run_gated_ffn(w_, part, x, partials.back());
      }
      EXPECT_EQ(columns, width);
      backend_->run(CombineExperts{combined, {}, 0, partials, slice_counts});
      EXPECT_THAT(values_of(combined), ElementsAreArray(values_of(whole)));
    }
  }
}

// ---- routed experts

class RoutedExpertsTest : public LayerPiecesTest {
 protected:
  static constexpr std::int64_t kRows = 5, kTopK = 2;
  // Expert 1 is in every row, 4 in none.
  static constexpr std::int32_t kIds[kRows][kTopK] = {{1, 5}, {0, 1}, {1, 2}, {3, 1}, {5, 1}};

  RoutedExpertsTest() : reader_(*checkpoint_, *backend_, {}) {
    config_.hidden = kHidden;
    config_.experts = kExperts;
    config_.experts_per_token = kTopK;
    config_.expert_width = kExpertWidth;
    hand_over_ = {tensors_.f32(kRows, kHidden), ids(kRows), tensors_.f32(kRows, kTopK)};
    fill_normal(hand_over_.hidden, 21);
    fill_normal(hand_over_.expert_weights, 22);
    std::copy_n(&kIds[0][0], kRows * kTopK, hand_over_.expert_ids.as<std::int32_t>());
  }
  Tensor ids(std::int64_t rows) { return Tensor(tensors_.i32(rows * kTopK).data, DType::kI32, {rows, kTopK}); }
  RoutedExperts load(const FfnShare& share) {
    return load_routed_experts(reader_, stacked_experts(kNames, kExperts), config_, share);
  }
  WorkerSlots run(const FfnShare& share) {
    const WorkerSlots slots{share, tensors_.f32(count_slots(hand_over_, share), kHidden)};
    fill(slots.slot_rows, NAN);
    Arena exact(*backend_, ffn_scratch(config_, hand_over_.rows()));
    run_routed_experts({*backend_, exact}, load(share), hand_over_, slots.slot_rows);
    return slots;
  }

  const SyntheticTensors stored_{{"gate", {kExperts, kExpertWidth, kHidden}},
                                 {"up", {kExperts, kExpertWidth, kHidden}},
                                 {"down", {kExperts, kHidden, kExpertWidth}}};
  const SyntheticCheckpoint checkpoint_{Json::object(), stored_};
  WeightReader reader_;
  ModelConfig config_;
  HandOver hand_over_;
};

TEST_F(RoutedExpertsTest, every_slot_is_its_expert_times_its_weight) {
  const WorkerSlots slots = run({.expert_begin = 0, .expert_end = kExperts});
  ASSERT_EQ(slots.slot_rows.rows(), kRows * kTopK);
  const PlainFfn expert = plain(stored_, kExpertWidth);
  for (std::int64_t slot = 0; slot < kRows * kTopK; ++slot) {
    const std::int64_t row = slot / kTopK;
    std::vector<double> expected = expert(hand_over_.hidden.row<float>(row), kIds[row][slot % kTopK]);
    for (double& value : expected) value *= hand_over_.expert_weights.f32()[slot];
    EXPECT_THAT(values_of(slots.slot_rows.slice_rows(slot, 1)), Pointwise(testing::DoubleNear(1e-5), expected));
  }
}

TEST_F(RoutedExpertsTest, the_slots_of_several_workers_are_those_of_one_bit_for_bit) {
  const Tensor whole = run({.expert_begin = 0, .expert_end = kExperts}).slot_rows;
  for (std::int32_t count = 2; count <= 8; ++count) {  // more workers than experts: some hold none
    SCOPED_TRACE(count);
    std::vector<WorkerSlots> workers;
    for (std::int32_t i = 0; i < count; ++i) workers.push_back(run(ffn_share(i, count, kExperts)));
    const Tensor merged = tensors_.f32(kRows * kTopK, kHidden);
    merge_slots(hand_over_, workers, merged);
    EXPECT_THAT(values_of(merged), ElementsAreArray(values_of(whole)));
  }
}

// Cut by width and unweighted, they add up to the bits of the whole; 33 columns are two blocks.
TEST_F(RoutedExpertsTest, parts_of_the_width_add_up_to_the_slots_of_the_whole_bit_for_bit) {
  const FfnShare whole{.expert_begin = 0, .expert_end = kExperts};
  const Tensor expected = run(whole).slot_rows;
  const Tensor weights = tensors_.f32(kRows * kTopK, 1);
  std::copy_n(hand_over_.expert_weights.f32(), kRows * kTopK, weights.f32());
  fill(hand_over_.expert_weights, 1);
  std::vector<Tensor> parts;
  std::int64_t columns = 0;
  for (std::int32_t i = 0; i < 2; ++i) {
    const FfnShare share = ffn_share(i, FfnSplit{1, 2}, kExperts);
    columns += load(share).experts.front().width;
    parts.push_back(run(share).slot_rows);
  }
  EXPECT_EQ(columns, kExpertWidth);
  const Tensor sums = tensors_.f32(kRows * kTopK, kHidden), found = tensors_.f32(kRows * kTopK, kHidden);
  const std::int32_t slice_counts[] = {4, 4};
  backend_->run(CombineExperts{sums, {}, 0, parts, slice_counts});
  const Tensor places = tensors_.i32(kRows * kTopK);
  for (std::int32_t i = 0; i < kRows * kTopK; ++i) places.as<std::int32_t>()[i] = i;
  backend_->run(ScatterScaledRows{found, sums, places, weights});
  EXPECT_THAT(values_of(found), ElementsAreArray(values_of(expected)));
}

TEST_F(RoutedExpertsTest, a_width_of_fewer_blocks_than_parts_is_refused) {
  const Error error = error_of([&] { load(ffn_share(3, FfnSplit{1, 4}, kExperts)); });
  EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
  EXPECT_EQ(
      error.message(),
      "down: experts are 33 wide in blocks of 32, which can be cut into 2 parts, not into 4 (--layout, split.width)");
}

TEST_F(RoutedExpertsTest, more_than_the_backend_multiplies_by_at_once_are_refused) {
  class Small final : public ForwardingBackend {
   public:
    using ForwardingBackend::ForwardingBackend;
    std::int64_t weights_max() const override { return 4; }
  };
  Small small(make_reference_backend());
  WeightReader reader(*checkpoint_, small, {});
  const auto load = [&](std::int32_t experts) {
    return load_routed_experts(reader, stacked_experts(kNames, kExperts), config_,
                               {.expert_begin = 1, .expert_end = 1 + experts});
  };
  EXPECT_EQ(load(4).experts.size(), 4u);
  const Error error = error_of([&] { load(5); });
  EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
  EXPECT_EQ(error.message(), "gate: 5 experts of a layer on one worker; reference multiplies by at most 4 at once");
}

// Blocks of 256, which are longer than the 32 columns of other weights.
TEST_F(LayerPiecesTest, experts_of_k_quants_are_cut_between_their_blocks) {
  constexpr std::int64_t kWide = 512;
  const auto stored = [](const std::string& name, const Shape& shape) {
    constexpr DTypeTraits type = traits(DType::kQ4_K);
    const std::int64_t blocks = shape.elements() / static_cast<std::int64_t>(type.block_elements);
    return GgufTensor{.name = name,
                      .shape = shape,
                      .values = {},
                      .dtype = DType::kQ4_K,
                      .bytes = std::vector<std::byte>(static_cast<std::size_t>(blocks) * type.block_bytes)};
  };
  const TemporaryFolder folder;
  const auto checkpoint =
      Checkpoint::open(write_gguf(folder, Json::parse(R"({"general.architecture": "qwen3moe"})"),
                                  {stored("gate", {kExperts, kWide, 256}), stored("up", {kExperts, kWide, 256}),
                                   stored("down", {kExperts, 256, kWide})}));
  WeightReader reader(*checkpoint, *backend_, {});
  ModelConfig config;
  config.hidden = 256;
  config.experts = kExperts;
  config.expert_width = kWide;
  const auto load = [&](const FfnSplit& split) {
    return load_routed_experts(reader, stacked_experts(kNames, kExperts), config, ffn_share(0, split, kExperts));
  };
  EXPECT_EQ(load({1, 2}).experts.front().width, 256);
  EXPECT_EQ(load({1, 2}).experts.front().down->k(), 256);
  EXPECT_THAT(error_of([&] { load({1, 4}); }).message(),
              testing::HasSubstr("512 wide in blocks of 256, which can be cut into 2 parts, not into 4"));
}

TEST_F(RoutedExpertsTest, a_worker_whose_experts_nobody_chose_has_nothing_to_do) {
  const FfnShare share{.expert_begin = 4, .expert_end = 5};
  EXPECT_EQ(count_slots(hand_over_, share), 0);
  const Tensor guard = tensors_.f32(1, kHidden);
  fill(guard, 7);
  run_routed_experts(w_, load(share), hand_over_, guard.slice_rows(0, 0));
  EXPECT_THAT(values_of(guard), Each(7.0f));
}

TEST_F(RoutedExpertsTest, a_row_does_not_depend_on_its_neighbours) {
  const Tensor together = run({.expert_begin = 0, .expert_end = kExperts}).slot_rows;
  const HandOver all = hand_over_;
  for (std::int64_t r = 0; r < kRows; ++r) {
    hand_over_ = {all.hidden.slice_rows(r, 1), all.expert_ids.slice_rows(r, 1), all.expert_weights.slice_rows(r, 1)};
    const Tensor alone = run({.expert_begin = 0, .expert_end = kExperts}).slot_rows;
    EXPECT_THAT(values_of(alone), ElementsAreArray(values_of(together.slice_rows(r * kTopK, kTopK)))) << "row " << r;
  }
}

TEST_F(RoutedExpertsTest, no_rows_make_no_slots) {
  hand_over_ = {tensors_.f32(0, kHidden), ids(0), tensors_.f32(0, kTopK)};
  EXPECT_EQ(run({.expert_begin = 0, .expert_end = kExperts}).slot_rows.rows(), 0);
}

TEST_F(RoutedExpertsTest, slots_are_counted_by_owner_and_a_dense_layer_has_none) {
  EXPECT_EQ(count_slots(hand_over_, {.expert_begin = 0, .expert_end = kExperts}), kRows * kTopK);
  EXPECT_EQ(count_slots(hand_over_, {.expert_begin = 1, .expert_end = 2}), kRows);
  EXPECT_EQ(count_slots(hand_over_, {.expert_begin = 2, .expert_end = 6}), 4);
  EXPECT_EQ(count_slots(hand_over_, {.expert_begin = 3, .expert_end = 3}), 0);
  EXPECT_EQ(count_slots({.hidden = hand_over_.hidden}, {.expert_begin = 0, .expert_end = kExperts}), 0);
}

using RoutedExpertsDeathTest = RoutedExpertsTest;
TEST_F(RoutedExpertsDeathTest, another_number_of_output_rows_is_a_bug) {
  const FfnShare share{.expert_begin = 0, .expert_end = 2};
  const RoutedExperts layer = load(share);
  const Tensor out = tensors_.f32(count_slots(hand_over_, share) + 1, kHidden);
  EXPECT_DEATH(run_routed_experts(w_, layer, hand_over_, out), "count is not the number of slots");
}

}  // namespace
}  // namespace tandem
