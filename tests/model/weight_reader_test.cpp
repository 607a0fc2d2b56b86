// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "model/weight_reader.h"

#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>
#include <numeric>
#include <set>

#include "base/scalar.h"
#include "tests/base/error_of.h"
#include "tests/model/split_run.h"
#include "tests/model/synthetic_checkpoint.h"

namespace tandem {
namespace {

using testing::ElementsAre;
using testing::ElementsAreArray;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

// Rows of a packed matrix as a backend sees them.
std::vector<float> rows_of(Backend& backend, const Weight& weight) {
  Arena arena(backend, scratch_bytes({weight.n(), weight.n() * weight.k()}));
  const Tensor ids = arena.i32(weight.n()), rows = arena.f32(weight.n(), weight.k());
  std::iota(ids.as<std::int32_t>(), ids.as<std::int32_t>() + weight.n(), 0);
  backend.run(EmbedRows{rows, &weight, ids});
  return {rows.f32(), rows.f32() + rows.shape.elements()};
}

// Element [row, column] of a stored [n, k] tensor for all rows and columns of a range.
std::vector<float> range(const SyntheticTensor& tensor, std::int64_t row, std::int64_t rows, std::int64_t column,
                         std::int64_t columns) {
  const std::vector<float> values = synthetic_values(tensor);
  const std::int64_t k = tensor.shape[tensor.shape.rank - 1];
  std::vector<float> out;
  for (std::int64_t r = row; r < row + rows; ++r)
    out.insert(out.end(), values.begin() + r * k + column, values.begin() + r * k + column + columns);
  return out;
}

const SyntheticTensors kStored{
    {"a", {6, 10}}, {"b", {4, 10}}, {"experts", {3, 5, 8}}, {"norm", {7}}, {"half", {7}, DType::kBF16}};

class WeightReaderTest : public testing::Test {
 protected:
  std::vector<float> load(const std::vector<WeightName>& parts) {
    WeightReader reader(*checkpoint_, *backend_, {});
    return rows_of(*backend_, *reader.matrix(Part::kAttention, parts));
  }

  const SyntheticCheckpoint checkpoint_{Json::object(), kStored};
  const std::unique_ptr<Backend> backend_ = checked_reference();
};

TEST_F(WeightReaderTest, parts_are_stacked_along_the_output) {
  std::vector<float> expected = range(kStored[0], 0, 6, 0, 10);
  const std::vector<float> second = range(kStored[1], 0, 4, 0, 10);
  expected.insert(expected.end(), second.begin(), second.end());
  EXPECT_THAT(load({{.name = "a", .shape = {6, 10}}, {.name = "b", .shape = {4, 10}}}), ElementsAreArray(expected));
}

TEST_F(WeightReaderTest, ranges_of_rows_and_columns_are_cut_out) {
  EXPECT_THAT(load({{.name = "a", .shape = {6, 10}, .row_begin = 2, .row_end = 5}}),
              ElementsAreArray(range(kStored[0], 2, 3, 0, 10)));
  EXPECT_THAT(load({{.name = "a", .shape = {6, 10}, .column_begin = 3, .column_end = 7}}),
              ElementsAreArray(range(kStored[0], 0, 6, 3, 4)));
  EXPECT_THAT(load({{.name = "a", .shape = {6, 10}, .row_begin = 4, .column_begin = 8}}),
              ElementsAreArray(range(kStored[0], 4, 2, 8, 2)));
  EXPECT_THAT(load({{.name = "a", .shape = {6, 10}, .row_begin = 3, .row_end = 3}}), IsEmpty());
}

TEST_F(WeightReaderTest, an_expert_is_its_part_of_the_stack) {
  for (std::int64_t e = 0; e < 3; ++e) {
    EXPECT_THAT(load({{.name = "experts", .shape = {3, 5, 8}, .expert = e}}),
                ElementsAreArray(range(kStored[2], 5 * e, 5, 0, 8)));
    EXPECT_THAT(load({{.name = "experts", .shape = {3, 5, 8}, .row_begin = 1, .row_end = 3, .expert = e}}),
                ElementsAreArray(range(kStored[2], 5 * e + 1, 2, 0, 8)));
  }
}

TEST_F(WeightReaderTest, rows_can_be_reordered) {
  std::vector<float> expected;
  for (const int row : {2, 0, 3, 1}) {
    const std::vector<float> values = range(kStored[1], row, 1, 0, 10);
    expected.insert(expected.end(), values.begin(), values.end());
  }
  EXPECT_THAT(load({{.name = "b", .shape = {4, 10}, .row_order = {2, 0, 3, 1}}}), ElementsAreArray(expected));
}

TEST_F(WeightReaderTest, vectors_are_widened) {
  WeightReader reader(*checkpoint_, *backend_, {});
  const Buffer norm = reader.vector(Part::kNorm, "norm", 7), half = reader.vector(Part::kNorm, "half", 7);
  const auto* values = static_cast<const float*>(norm.data());
  EXPECT_THAT(std::vector(values, values + 7), ElementsAreArray(synthetic_values(kStored[3])));
  const std::vector<float> wide = synthetic_values(kStored[4]);
  for (int i = 0; i < 7; ++i) EXPECT_NEAR(static_cast<const float*>(half.data())[i], wide[i], 0.01);
}

TEST_F(WeightReaderTest, progress_and_packed_memory_are_counted) {
  std::vector<std::int64_t> done;
  WeightReader reader(*checkpoint_, *backend_, [&](std::int64_t bytes) { done.push_back(bytes); });
  const auto weight = reader.matrix(Part::kAttention, {{.name = "a", .shape = {6, 10}, .row_end = 2}});
  reader.vector(Part::kNorm, "half", 7);
  EXPECT_THAT(done, ElementsAre(2 * 10 * 4, 7 * 2));
  EXPECT_EQ(reader.bytes_packed(), static_cast<std::int64_t>(weight->bytes())) << "vectors are not packed";
}

TEST_F(WeightReaderTest, declaring_records_and_reads_nothing) {
  WeightReader reader(*checkpoint_);
  EXPECT_EQ(reader.matrix(Part::kRouter,
                          {{.name = "a", .shape = {6, 10}, .row_end = 2}, {.name = "not there", .shape = {9, 10}}}),
            nullptr);
  EXPECT_EQ(reader.vector(Part::kNorm, "half", 7).data(), nullptr);
  for (std::int64_t e = 0; e < 2; ++e)
    reader.matrix(Part::kExperts, {{.name = "experts", .shape = {3, 5, 8}, .expert = e}});
  EXPECT_EQ(total_bytes(reader.parts()), 4 * (2 * 10 + 2 * 5 * 8) + 2 * 7)
      << "ranges, and nothing for what is not there";

  ASSERT_THAT(reader.requirements().required, SizeIs(4)) << "experts of one tensor need it once";
  const RequiredTensor& a = reader.requirements().required[0];
  EXPECT_EQ(a.name, "a");
  EXPECT_EQ(a.shape, (Shape{6, 10})) << "as the file must have it, not the range";
  EXPECT_THAT(a.dtypes, ElementsAre(DType::kF32, DType::kBF16, DType::kF16, DType::kQ8_0, DType::kQ4_0, DType::kQ4_1,
                                    DType::kQ4_K, DType::kQ5_K, DType::kQ6_K));
  EXPECT_THAT(reader.requirements().required[2].dtypes, ElementsAre(DType::kF32, DType::kBF16, DType::kF16))
      << "vectors are never quantised";
  EXPECT_EQ(reader.parts().at(Part::kRouter).parameters, 2 * 10 + 9 * 10);
  EXPECT_EQ(reader.parts().at(Part::kNorm).parameters, 7);
  EXPECT_EQ(reader.parts().at(Part::kExperts).parameters, 2 * 5 * 8);
}

TEST(WeightReader, columns_inside_a_quantisation_block_are_refused) {
  const auto checkpoint = Checkpoint::open("tests/goldens/llama_gguf/llama-q4_0.gguf");
  const auto backend = checked_reference();
  WeightReader reader(*checkpoint, *backend, {});
  const Error error = error_of([&] {
    reader.matrix(Part::kDenseFfn,
                  {{.name = "blk.0.ffn_down.weight", .shape = {256, 256}, .column_begin = 16, .column_end = 64}});
  });
  EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
  EXPECT_THAT(error.message(),
              HasSubstr("blk.0.ffn_down.weight: columns 16 … 64 of 256 do not lie on the 32-value blocks of q4_0"));
}

// ---- E4M3 with block scales

// Blocks of 128 at the start, and ones cut short at the ends.
class BlockFp8Test : public testing::Test {
 protected:
  BlockFp8Test() { reader_.accept_block_fp8(); }

  // Codes times scales, of rows and columns of an expert.
  static std::vector<float> expected(std::int64_t expert, std::int64_t row_begin, std::int64_t rows,
                                     std::int64_t column_begin, std::int64_t columns) {
    const std::vector<float> values = synthetic_values(kTensors[0]), scales = synthetic_values(kTensors[1]);
    std::vector<float> out;
    for (std::int64_t r = row_begin; r < row_begin + rows; ++r)
      for (std::int64_t c = column_begin; c < column_begin + columns; ++c) {
        const float value = values[static_cast<std::size_t>((expert * kRows + r) * kColumns + c)];
        const float scale = scales[static_cast<std::size_t>((expert * 2 + r / 128) * 3 + c / 128)];
        out.push_back(f8_e4m3_to_f32(f32_to_f8_e4m3(value)) * scale);
      }
    return out;
  }

  static constexpr std::int64_t kRows = 200, kColumns = 300;
  static inline const SyntheticTensors kTensors{{"w", {2, kRows, kColumns}, DType::kF8E4M3},
                                                {"w_scale_inv", {2, 2, 3}}};
  const SyntheticCheckpoint checkpoint_{Json::object(), kTensors};
  const std::unique_ptr<Backend> backend_ = checked_reference();
  WeightReader reader_{*checkpoint_, *backend_, {}};
};

TEST_F(BlockFp8Test, ranges_take_their_scales_along) {
  const Shape shape{2, kRows, kColumns};
  const auto load = [&](const WeightName& w) { return rows_of(*backend_, *reader_.matrix(Part::kExperts, {w})); };
  for (std::int64_t e = 0; e < 2; ++e) {
    EXPECT_THAT(load({.name = "w", .shape = shape, .expert = e}), ElementsAreArray(expected(e, 0, kRows, 0, kColumns)));
    EXPECT_THAT(load({.name = "w", .shape = shape, .row_begin = 128, .expert = e}),
                ElementsAreArray(expected(e, 128, 72, 0, kColumns)));
    EXPECT_THAT(load({.name = "w", .shape = shape, .row_begin = 100, .row_end = 150, .expert = e}),
                ElementsAreArray(expected(e, 100, 50, 0, kColumns)));
    EXPECT_THAT(load({.name = "w", .shape = shape, .column_begin = 128, .expert = e}),
                ElementsAreArray(expected(e, 0, kRows, 128, 172)));
    EXPECT_THAT(load({.name = "w", .shape = shape, .column_begin = 128, .column_end = 256, .expert = e}),
                ElementsAreArray(expected(e, 0, kRows, 128, 128)));
  }
}

TEST_F(BlockFp8Test, columns_inside_a_block_are_refused) {
  const Error error = error_of([&] {
    reader_.matrix(Part::kExperts,
                   {{.name = "w", .shape = {2, kRows, kColumns}, .column_begin = 128, .column_end = 200, .expert = 0}});
  });
  EXPECT_THAT(error.message(), HasSubstr("columns 128 … 200 of 300 do not lie on the 128-value blocks of f8_e4m3"));
}

TEST_F(BlockFp8Test, scales_are_required_and_slices_end_on_blocks) {
  WeightReader declaring(*checkpoint_);
  declaring.accept_block_fp8();
  declaring.matrix(Part::kExperts, {{.name = "w", .shape = {2, kRows, kColumns}, .expert = 0}});
  ASSERT_THAT(declaring.requirements().required, SizeIs(2));
  EXPECT_EQ(declaring.requirements().required[1].name, "w_scale_inv");
  EXPECT_EQ(declaring.requirements().required[1].shape, (Shape{2, 2, 3}));
  EXPECT_EQ(total_bytes(declaring.parts()), kRows * kColumns + 2 * 3 * 4);
  EXPECT_TRUE(WeightReader::is_scale("w_scale_inv"));
  EXPECT_FALSE(WeightReader::is_scale("w"));
  EXPECT_EQ(declaring.slice_granule("w"), 128);
  EXPECT_EQ(declaring.slice_granule("none"), 128);  // its inputs may be rounded in blocks as wide
  EXPECT_EQ(WeightReader(*checkpoint_).slice_granule("none"), 32);
}

TEST_F(BlockFp8Test, a_file_that_does_not_announce_it_or_a_router_must_not_have_it) {
  WeightReader plain(*checkpoint_), router(*checkpoint_);
  router.accept_block_fp8();
  plain.matrix(Part::kExperts, {{.name = "w", .shape = {2, kRows, kColumns}, .expert = 0}});
  router.matrix(Part::kRouter, {{.name = "w", .shape = {2, kRows, kColumns}, .expert = 0}});
  for (const WeightReader* reader : {&plain, &router}) {
    ASSERT_THAT(reader->requirements().required, SizeIs(1));
    EXPECT_THAT(reader->requirements().required[0].dtypes, testing::Not(testing::Contains(DType::kF8E4M3)));
  }
}

TEST(Part, every_part_has_a_name_of_its_own) {
  std::set<std::string_view> names;
  for (int part = 0; part <= static_cast<int>(Part::kHead); ++part) names.insert(name(static_cast<Part>(part)));
  EXPECT_EQ(names.size(), static_cast<std::size_t>(Part::kHead) + 1);
  EXPECT_FALSE(names.contains("unknown"));
}

// Memory of this process that a file's pages take.
std::int64_t mapped_kib(const std::string& path) {
  std::ifstream maps("/proc/self/smaps");
  std::int64_t sum = 0;
  bool inside = false;
  for (std::string line; std::getline(maps, line);) {
    if (line.find('-') < line.find(' ')) inside = line.ends_with(path);  // the head of a mapping: addresses, …, path
    if (inside && line.starts_with("Rss:")) sum += std::stoll(line.substr(4));
  }
  return sum;
}

TEST(WeightReader, gives_pages_back_as_soon_as_they_are_packed) {
  constexpr std::int64_t kExperts = 3, kRows = 1024, kColumns = 2048;  // of 8 MiB each
  const auto ones = [](const std::string& name, const Shape& shape) {
    SyntheticTensor tensor{name, shape};
    tensor.values.assign(static_cast<std::size_t>(shape.elements()), 1);
    return tensor;
  };
  const SyntheticCheckpoint checkpoint(Json::object(),
                                       {ones("experts", {kExperts, kRows, kColumns}), ones("plain", {kRows, kColumns}),
                                        ones("turned", {kRows, kColumns})});
  const std::string path = std::filesystem::canonical(checkpoint->file(checkpoint->tensors()[0]).path());
  const std::unique_ptr<Backend> backend = checked_reference();
  WeightReader reader(*checkpoint, *backend, {});
  // The kernel may map two mebibytes around a page that is touched, and pages at the ends of a stretch stay.
  constexpr std::int64_t kLeftKib = 2 * 2048 + 512;
  for (std::int64_t e = 0; e < kExperts; ++e) {
    reader.matrix(Part::kExperts, {{.name = "experts", .shape = {kExperts, kRows, kColumns}, .expert = e}});
    EXPECT_LT(mapped_kib(path), kLeftKib) << "after expert " << e;
  }
  reader.matrix(Part::kAttention, {{.name = "plain", .shape = {kRows, kColumns}, .column_begin = 512}});
  EXPECT_LT(mapped_kib(path), kLeftKib);
  reader.transposed(Part::kAttention, {.name = "turned", .shape = {kRows, kColumns}});
  EXPECT_LT(mapped_kib(path), kLeftKib);
  const std::vector<std::byte> touched(checkpoint->data(*checkpoint->find("plain")).begin(),
                                       checkpoint->data(*checkpoint->find("plain")).end());
  EXPECT_GT(mapped_kib(path), kLeftKib) << "else what is counted is not this file";
}

}  // namespace
}  // namespace tandem
