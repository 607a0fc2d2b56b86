// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "checkpoint/safetensors_writer.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "checkpoint/mapped_file.h"
#include "checkpoint/safetensors.h"
#include "tests/base/error_of.h"
#include "tests/checkpoint/temporary_folder.h"

namespace tandem {
namespace {

using ::testing::HasSubstr;

std::span<const std::byte> bytes_of(const std::vector<float>& values) {
  return std::as_bytes(std::span(values));
}

TEST(SafetensorsWriter, what_it_writes_reads_back) {
  const TemporaryFolder folder;
  const std::vector<float> first{1, 2, 3, 4, 5, 6}, second{7};
  const std::vector<std::byte> odd(3, std::byte{9});
  const std::vector<SafetensorsTensor> tensors{{"odd", DType::kU8, {3}, odd},
                                               {"first", DType::kF32, {2, 3}, bytes_of(first)},
                                               {"second \"quoted\"", DType::kF32, {}, bytes_of(second)},
                                               {"none", DType::kBF16, {0, 4}, {}}};
  write_safetensors(folder.path("a.safetensors"), tensors, {{"format", "pt"}});

  const MappedFile file = MappedFile::open(folder.path("a.safetensors"));
  const SafetensorsHeader header = parse_safetensors(file.bytes(), "a");
  EXPECT_EQ(header.metadata.at("format"), "pt");
  ASSERT_EQ(header.tensors.size(), 4u);
  for (const TensorInfo& info : header.tensors) {
    SCOPED_TRACE(info.name);
    const auto written = std::ranges::find(tensors, info.name, &SafetensorsTensor::name);
    ASSERT_NE(written, tensors.end());
    EXPECT_EQ(info.shape, written->shape);
    EXPECT_EQ(info.dtype, written->dtype);
    EXPECT_EQ(info.offset % traits(*info.dtype).block_bytes, 0u) << "aligned to its element";
    EXPECT_TRUE(std::ranges::equal(file.bytes(info.offset, info.bytes), written->data));
  }
  EXPECT_FALSE(std::filesystem::exists(folder.path("a.safetensors.partial")));
}

TEST(SafetensorsWriter, refuses_what_cannot_be_read_back) {
  const TemporaryFolder folder;
  const std::vector<float> data{1, 2};
  const auto refused = [&](const std::vector<SafetensorsTensor>& tensors) {
    return error_of([&] { write_safetensors(folder.path("a.safetensors"), tensors); });
  };
  const SafetensorsTensor good{"a", DType::kF32, {2}, bytes_of(data)};
  EXPECT_THAT(refused({good, good}).message(), HasSubstr("given twice"));
  EXPECT_THAT(refused({{"a", DType::kF32, {3}, bytes_of(data)}}).message(), HasSubstr("takes 12 bytes, 8 were given"));
  EXPECT_EQ(refused({{"__metadata__", DType::kF32, {2}, bytes_of(data)}}).code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(refused({{"a", DType::kQ8_0, {32}, bytes_of(data)}}).code(), ErrorCode::kUnsupported);
  EXPECT_FALSE(std::filesystem::exists(folder.path("a.safetensors")));
  EXPECT_EQ(error_of([&] { write_safetensors(folder.path("no/such/folder"), {}); }).code(), ErrorCode::kNotFound);
}

TEST(SafetensorsWriter, bytes_may_be_made_piece_by_piece) {
  const TemporaryFolder folder;
  constexpr std::int64_t kLong = 3 * kSafetensorsPieceBytes + 5;
  const std::vector<SafetensorsEntry> tensors{
      {"long", DType::kU8, {kLong}}, {"none", DType::kF32, {0}}, {"short", DType::kF32, {2}}};
  const auto value = [](std::size_t index, std::uint64_t at) { return std::byte(index + at % 251); };
  std::int64_t told = 0;
  const SafetensorsSource source{.fill =
                                     [&](std::size_t index, std::uint64_t offset, std::span<std::byte> out) {
                                       EXPECT_LE(out.size(), kSafetensorsPieceBytes);
                                       for (std::size_t i = 0; i < out.size(); ++i) out[i] = value(index, offset + i);
                                     },
                                 .threads = 3,
                                 .listener = [&](std::int64_t bytes) { told += bytes; }};
  write_safetensors(folder.path("a.safetensors"), tensors, source);
  EXPECT_EQ(told, kLong + 8);
  const MappedFile file = MappedFile::open(folder.path("a.safetensors"));
  for (const TensorInfo& info : parse_safetensors(file.bytes(), "a").tensors) {
    const std::size_t index = info.name == "long" ? 0 : 2;
    const auto bytes = file.bytes(info.offset, info.bytes);
    for (std::uint64_t i = 0; i < bytes.size(); ++i) ASSERT_EQ(bytes[i], value(index, i)) << info.name << " " << i;
  }
}

TEST(SafetensorsWriter, what_fill_throws_comes_out_and_leaves_no_file) {
  const TemporaryFolder folder;
  const std::vector<SafetensorsEntry> tensors{{"a", DType::kU8, {5 * kSafetensorsPieceBytes}}};
  const auto fill = [](std::size_t, std::uint64_t offset, std::span<std::byte>) {
    if (offset > 0) throw Error(ErrorCode::kCancelled, "enough");
  };
  EXPECT_EQ(error_of([&] { write_safetensors(folder.path("a.safetensors"), tensors, {fill, 2, {}}); }).code(),
            ErrorCode::kCancelled);
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(SafetensorsWriter, a_full_disk_leaves_nothing_behind) {
  const TemporaryFolder folder;
  const std::string path = folder.path("full.safetensors");
  std::filesystem::create_symlink("/dev/full", path + ".partial");
  const std::vector<float> data(1 << 16);
  const std::vector<SafetensorsTensor> tensors{{"a", DType::kF32, {1 << 16}, bytes_of(data)}};
  EXPECT_EQ(error_of([&] { write_safetensors(path, tensors); }).code(), ErrorCode::kOutOfResources);
  EXPECT_FALSE(std::filesystem::exists(path));
  EXPECT_FALSE(std::filesystem::is_symlink(path + ".partial"));
}

}  // namespace
}  // namespace tandem
