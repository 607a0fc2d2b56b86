// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "checkpoint/safetensors.h"

#include <gmock/gmock.h>

#include <string>
#include <vector>

#include "base/rng.h"
#include "tests/base/error_of.h"
#include "tests/checkpoint/bytes.h"

namespace tandem {
namespace {

using ::testing::HasSubstr;

Bytes safetensors(std::string_view header, std::size_t data_bytes) {
  return Bytes().u64(header.size()).text(header).zeros(data_bytes);
}

SafetensorsHeader parse(const Bytes& file) {
  return parse_safetensors(file.span(), "test.safetensors");
}

constexpr std::string_view kSmall = R"({"__metadata__":{"format":"pt"},)"
                                    R"("b":{"dtype":"BF16","shape":[2,3],"data_offsets":[16,28]},)"
                                    R"("a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},)"
                                    R"("scalar":{"dtype":"I32","shape":[],"data_offsets":[28,32]},)"
                                    R"("none":{"dtype":"U8","shape":[0,5],"data_offsets":[28,28]}}  )";

TEST(Safetensors, reads_tensors_by_offset) {
  const SafetensorsHeader header = parse(safetensors(kSmall, 32));
  EXPECT_EQ(header.metadata.at("format"), "pt");
  ASSERT_EQ(header.tensors.size(), 4u);
  EXPECT_EQ(header.tensors[0].name, "a");
  EXPECT_EQ(header.tensors[0].offset, 8 + kSmall.size());
  EXPECT_EQ(header.tensors[1].name, "b");
  EXPECT_EQ(header.tensors[1].dtype, DType::kBF16);
  EXPECT_EQ(header.tensors[1].shape, (Shape{2, 3}));
  EXPECT_EQ(header.tensors[1].bytes, 12u);
  EXPECT_EQ(header.tensors[2].name, "none");
  EXPECT_EQ(header.tensors[2].bytes, 0u);
  EXPECT_EQ(header.tensors[3].shape, Shape{});
}

TEST(Safetensors, lists_types_it_does_not_read) {
  const SafetensorsHeader header = parse(safetensors(
      R"({"a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},"b":{"dtype":"F4","shape":[4],"data_offsets":[8,10]},)"
      R"("c":{"dtype":"U8","shape":[1,2,1,2,3],"data_offsets":[10,22]}})",
      22));
  for (const TensorInfo& info : header.tensors) EXPECT_FALSE(info.dtype) << info.name;
  EXPECT_EQ(header.tensors[0].type_name, "I64");
  EXPECT_EQ(header.tensors[1].type_name, "F4");
  EXPECT_EQ(header.tensors[2].type_name, "U8 of rank 5");
  EXPECT_EQ(header.tensors[2].shape, (Shape{1, 2, 1, 6}));
}

TEST(Safetensors, a_file_cut_anywhere_is_refused) {
  const Bytes whole = safetensors(kSmall, 32);
  for (std::size_t size = 0; size < whole.span().size(); ++size) {
    const std::vector<std::byte> part(whole.span().begin(), whole.span().begin() + static_cast<std::ptrdiff_t>(size));
    EXPECT_THROW(parse_safetensors(part, "cut"), Error) << size << " bytes";
  }
  Bytes longer = whole;
  EXPECT_THROW(parse(longer.zeros(1)), Error) << "bytes after the last tensor";
}

struct Malformed {
  const char* header;
  std::size_t data_bytes;
  const char* message;
};

const Malformed kMalformed[] = {
    {"[]", 0, "does not begin with '{'"},
    {" {}", 0, "does not begin with '{'"},
    {"{", 0, "not valid JSON"},
    {R"({"a":[[[[1]]]]})", 0, "nested 5 deep"},
    {R"({"a":1})", 0, "not described by an object"},
    {R"({"a":{}})", 0, "no dtype"},
    {R"({"a":{"dtype":7,"shape":[1],"data_offsets":[0,4]}})", 4, "no dtype"},
    {R"({"a":{"dtype":"F32","data_offsets":[0,4]}})", 4, "no list 'shape'"},
    {R"({"a":{"dtype":"F32","shape":[1]}})", 4, "no list 'data_offsets'"},
    {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", 4, "expected a begin and an end"},
    {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}})", 4, "limit is 2"},
    {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", 4, "expected a begin and an end"},
    {R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4, "holds -1"},
    {R"({"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}})", 4, "holds 1.5"},
    {R"({"a":{"dtype":"F32","shape":["1"],"data_offsets":[0,4]}})", 4, "holds \"1\""},
    {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}})", 4, "holds -4"},
    {R"({"a":{"dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,4]}})", 4, "which is not a number from 0"},
    {R"({"a":{"dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,4]}})", 4, "elements"},
    {R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0, "elements"},
    {R"({"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}})", 4, "17 entries"},
    {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4, "takes 8 bytes, data_offsets span 4"},
    {R"({"a":{"dtype":"I64","shape":[2],"data_offsets":[0,4]}})", 4, "takes 16 bytes"},
    {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 4, "the file has 4 bytes"},
    {R"({"a":{"dtype":"F4","shape":[2],"data_offsets":[0,18446744073709551615]}})", 4, "the file has 4 bytes"},
    {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 8, "tensors end at 4, the file has 8"},
    {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8, "belong to nobody"},
    {R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}})", 6,
     "they overlap"},
    {R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", 4,
     "they overlap"},
    {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})", 3,
     "belong to nobody"},
    {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1,
     "appears twice"},
    {R"({"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1, "appears twice"},
    {R"({"":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1, "tensor name of 0 bytes"},
    {R"({"__metadata__":[]})", 0, "__metadata__ is not an object"},
    {R"({"__metadata__":{"a":1}})", 0, "is not a string"},
};

TEST(Safetensors, malformed_headers_are_refused_with_a_reason) {
  for (const Malformed& c : kMalformed) {
    SCOPED_TRACE(c.header);
    const Error error = error_of([&] { parse(safetensors(c.header, c.data_bytes)); });
    EXPECT_EQ(error.code(), ErrorCode::kInvalidData);
    EXPECT_THAT(error.message(), HasSubstr(c.message));
    EXPECT_THAT(error.message(), HasSubstr("test.safetensors"));
  }
}

TEST(Safetensors, header_length_is_bounded) {
  EXPECT_THAT(error_of([] { parse(Bytes().u64(~0ull).text("{}")); }).message(), HasSubstr("limit is 100000000"));
  EXPECT_THAT(error_of([] { parse(Bytes().u64(1ull << 63).text("{}")); }).message(), HasSubstr("limit is 100000000"));
  EXPECT_THAT(error_of([] { parse(Bytes().u64(3).text("{}")); }).message(), HasSubstr("the file has 2 left"));
  EXPECT_THAT(error_of([] { parse(Bytes().text("{}")); }).message(), HasSubstr("2 bytes long"));
  EXPECT_THAT(error_of([] { parse(Bytes().u64(0)); }).message(), HasSubstr("does not begin with '{'"));
  EXPECT_TRUE(parse(safetensors("{}", 0)).tensors.empty());
}

TEST(Safetensors, flipped_bytes_give_an_error_or_a_header_that_holds) {
  const Bytes whole = safetensors(kSmall, 32);
  Rng rng(20240608);
  int refused = 0, read = 0;
  for (int i = 0; i < 2000; ++i) {
    std::vector<std::byte> file(whole.span().begin(), whole.span().end());
    for (std::uint64_t flips = 1 + rng.below(3); flips > 0; --flips)
      file[rng.below(file.size())] ^= static_cast<std::byte>(1 + rng.below(255));
    try {
      std::uint64_t bytes = 0;
      for (const TensorInfo& info : parse_safetensors(file, "flipped").tensors)
        bytes += std::span(file).subspan(info.offset, info.bytes).size();
      EXPECT_EQ(bytes, 32u);
      ++read;
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 200) << "the flips reach the header";
  EXPECT_GT(read, 50) << "and the data";
}

}  // namespace
}  // namespace tandem
