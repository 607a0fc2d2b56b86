// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "checkpoint/gguf.h"

#include <gmock/gmock.h>

#include <functional>
#include <string>
#include <vector>

#include "base/rng.h"
#include "tests/base/error_of.h"
#include "tests/checkpoint/bytes.h"

namespace tandem {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr std::uint32_t kU32 = 4, kF32 = 6, kBool = 7, kString = 8, kArray = 9, kU64 = 10;

Bytes gguf(std::uint64_t tensors, std::uint64_t metadata, std::uint32_t version = 3) {
  return Bytes().text("GGUF").u32(version).u64(tensors).u64(metadata);
}

// A tensor entry with its dimensions in file order, the innermost first.
void add_tensor(Bytes& file, std::string_view name, std::vector<std::uint64_t> dims, std::uint32_t type,
                std::uint64_t offset) {
  file.string(name).u32(static_cast<std::uint32_t>(dims.size()));
  for (const std::uint64_t d : dims) file.u64(d);
  file.u32(type).u64(offset);
}

// Every kind of thing once: scalars, both sorts of arrays, a plain, a quantised and an unsupported tensor.
Bytes small_file() {
  Bytes file = gguf(3, 6);
  file.string("general.architecture").u32(kString).string("llama");
  file.string("llama.block_count").u32(kU32).u32(2);
  file.string("llama.eps").u32(kF32).number(0.5f);
  file.string("flag").u32(kBool).u8(1);
  file.string("tokens").u32(kArray).u32(kString).u64(2).string("a").string("bc");
  file.string("scores").u32(kArray).u32(kF32).u64(3).number(1.0f).number(-2.0f).number(0.25f);
  add_tensor(file, "norm", {4}, 0, 0);
  add_tensor(file, "weight", {32, 2}, 8, 32);
  add_tensor(file, "exotic", {256}, 20, 128);
  file.align(32).zeros(128 + 144);
  return file;
}

GgufHeader parse(const Bytes& file) {
  return parse_gguf(file.span(), "test.gguf");
}

TEST(Gguf, reads_metadata_and_tensors) {
  const Bytes file = small_file();
  const GgufHeader header = parse(file);
  EXPECT_EQ(header.version, 3u);
  EXPECT_EQ(header.scalars["general.architecture"], "llama");
  EXPECT_EQ(header.scalars["llama.block_count"], 2);
  EXPECT_EQ(header.scalars["llama.eps"], 0.5);
  EXPECT_EQ(header.scalars["flag"], true);
  EXPECT_THAT(strings(header.arrays.at("tokens")), ElementsAre("a", "bc"));
  EXPECT_THAT(numbers(header.arrays.at("scores")), ElementsAre(1, -2, 0.25));

  ASSERT_EQ(header.tensors.size(), 3u);
  const TensorInfo& weight = header.tensors[1];
  EXPECT_EQ(weight.shape, (Shape{2, 32})) << "the innermost dimension comes last";
  EXPECT_EQ(weight.dtype, DType::kQ8_0);
  EXPECT_EQ(weight.bytes, 68u);
  EXPECT_EQ(weight.offset, header.data_offset + 32);
  EXPECT_FALSE(header.tensors[2].dtype);
  EXPECT_EQ(header.tensors[2].type_name, "IQ4_NL");
  EXPECT_EQ(header.tensors[2].bytes, 144u);
}

TEST(Gguf, version_two_is_the_same) {
  Bytes file = small_file();
  file.data()[4] = std::byte{2};
  EXPECT_EQ(parse(file).version, 2u);
}

TEST(Gguf, unknown_tensor_types_are_listed) {
  Bytes file = gguf(1, 0);
  add_tensor(file, "t", {7}, 4711, 0);
  file.align(32);
  EXPECT_EQ(parse(file).tensors[0].type_name, "type 4711");
}

TEST(Gguf, a_file_cut_anywhere_is_refused) {
  const Bytes whole = small_file();
  for (std::size_t size = 0; size < whole.span().size(); ++size) {
    // A copy of its own, so that the address sanitizer sees a step beyond the end.
    const std::vector<std::byte> part(whole.span().begin(), whole.span().begin() + static_cast<std::ptrdiff_t>(size));
    EXPECT_THROW(parse_gguf(part, "cut"), Error) << size << " bytes";
  }
}

struct Malformed {
  const char* title;
  std::function<Bytes()> make;
  ErrorCode code;
  const char* message;
};

// One metadata entry or one tensor, and nothing after it.
Bytes with_metadata(const std::function<void(Bytes&)>& add) {
  Bytes file = gguf(0, 1);
  add(file);
  return file.zeros(64);
}
Bytes with_tensors(const std::vector<std::function<void(Bytes&)>>& adds, std::size_t data_bytes = 4096) {
  Bytes file = gguf(adds.size(), 0);
  for (const auto& add : adds) add(file);
  return file.align(32).zeros(data_bytes);
}
std::function<void(Bytes&)> tensor(std::string name, std::vector<std::uint64_t> dims, std::uint32_t type,
                                   std::uint64_t offset) {
  return [=](Bytes& file) { add_tensor(file, name, dims, type, offset); };
}
std::function<void(Bytes&)> alignment(std::uint32_t value) {
  return [=](Bytes& file) { file.string("general.alignment").u32(kU32).u32(value); };
}

const Malformed kMalformed[] = {
    {"magic", [] { return Bytes().text("GGML").u32(3).u64(0).u64(0); }, ErrorCode::kInvalidData,
     "does not begin with GGUF"},
    {"version 1", [] { return gguf(0, 0, 1); }, ErrorCode::kUnsupported, "version 1"},
    {"version 4", [] { return gguf(0, 0, 4); }, ErrorCode::kUnsupported, "version 4"},
    {"big-endian", [] { return gguf(0, 0, 0x03000000); }, ErrorCode::kUnsupported, "big-endian"},
    {"too many tensors", [] { return gguf(65537, 0).zeros(65537 * 24); }, ErrorCode::kInvalidData, "limit is 65536"},
    {"more tensors than bytes", [] { return gguf(1000, 0).zeros(100); }, ErrorCode::kInvalidData, "cannot hold"},
    {"tensor count 2^64 - 1", [] { return gguf(~0ull, 0); }, ErrorCode::kInvalidData, "limit is 65536"},
    {"too many metadata", [] { return gguf(0, 16385).zeros(16385 * 13); }, ErrorCode::kInvalidData, "limit is 16384"},
    {"more metadata than bytes", [] { return gguf(0, 100).zeros(100); }, ErrorCode::kInvalidData, "cannot hold"},
    {"key length 2^63", [] { return with_metadata([](Bytes& f) { f.u64(1ull << 63); }); }, ErrorCode::kInvalidData,
     "limit is 65535"},
    {"empty key", [] { return with_metadata([](Bytes& f) { f.string("").u32(kU32).u32(1); }); },
     ErrorCode::kInvalidData, "is empty"},
    {"unknown value type", [] { return with_metadata([](Bytes& f) { f.string("k").u32(13); }); },
     ErrorCode::kInvalidData, "unknown type 13"},
    {"boolean 2", [] { return with_metadata([](Bytes& f) { f.string("k").u32(kBool).u8(2); }); },
     ErrorCode::kInvalidData, "boolean with the value 2"},
    {"string length 2^63", [] { return with_metadata([](Bytes& f) { f.string("k").u32(kString).u64(1ull << 63); }); },
     ErrorCode::kInvalidData, "limit is 1048576"},
    {"string over its limit",
     [] { return with_metadata([](Bytes& f) { f.string("k").u32(kString).string(std::string((1 << 20) + 1, 'x')); }); },
     ErrorCode::kInvalidData, "limit is 1048576"},
    {"string beyond the file", [] { return with_metadata([](Bytes& f) { f.string("k").u32(kString).u64(1000); }); },
     ErrorCode::kInvalidData, "needs 1000 bytes"},
    {"array length 2^63",
     [] { return with_metadata([](Bytes& f) { f.string("k").u32(kArray).u32(kU64).u64(1ull << 63); }); },
     ErrorCode::kInvalidData, "limit is 4194304"},
    {"array beyond the file",
     [] { return with_metadata([](Bytes& f) { f.string("k").u32(kArray).u32(kU64).u64(100); }); },
     ErrorCode::kInvalidData, "cannot hold"},
    {"string in an array beyond the file",
     [] { return with_metadata([](Bytes& f) { f.string("k").u32(kArray).u32(kString).u64(1).u64(1000); }); },
     ErrorCode::kInvalidData, "needs 1000 bytes"},
    {"array of arrays", [] { return with_metadata([](Bytes& f) { f.string("k").u32(kArray).u32(kArray).u64(1); }); },
     ErrorCode::kUnsupported, "array of arrays"},
    {"key twice", [] { return gguf(0, 2).string("k").u32(kU32).u32(1).string("k").u32(kU32).u32(2); },
     ErrorCode::kInvalidData, "appears twice"},
    {"key twice, once an array",
     [] { return gguf(0, 2).string("k").u32(kU32).u32(1).string("k").u32(kArray).u32(kU32).u64(0); },
     ErrorCode::kInvalidData, "appears twice"},
    {"alignment 0", [] { return with_metadata(alignment(0)); }, ErrorCode::kInvalidData, "general.alignment is 0"},
    {"alignment 48", [] { return with_metadata(alignment(48)); }, ErrorCode::kInvalidData, "power of two"},
    {"alignment 4", [] { return with_metadata(alignment(4)); }, ErrorCode::kInvalidData, "from 8"},
    {"alignment 2^31", [] { return with_metadata(alignment(1u << 31)); }, ErrorCode::kInvalidData,
     "general.alignment is 2147483648"},
    {"alignment a string",
     [] { return with_metadata([](Bytes& f) { f.string("general.alignment").u32(kString).string("32"); }); },
     ErrorCode::kInvalidData, "not an unsigned number"},
    {"alignment an array",
     [] { return with_metadata([](Bytes& f) { f.string("general.alignment").u32(kArray).u32(kU32).u64(0); }); },
     ErrorCode::kInvalidData, "is an array"},
    {"tensor without a name", [] { return with_tensors({tensor("", {1}, 0, 0)}); }, ErrorCode::kInvalidData,
     "has no name"},
    {"tensor name too long", [] { return with_tensors({tensor(std::string(1025, 'n'), {1}, 0, 0)}); },
     ErrorCode::kInvalidData, "limit is 1024"},
    {"tensor twice", [] { return with_tensors({tensor("t", {1}, 0, 0), tensor("t", {1}, 0, 32)}); },
     ErrorCode::kInvalidData, "appears twice"},
    {"five dimensions", [] { return with_tensors({tensor("t", {1, 1, 1, 1, 1}, 0, 0)}); }, ErrorCode::kInvalidData,
     "5 dimensions"},
    {"dimension 2^63", [] { return with_tensors({tensor("t", {1ull << 63}, 0, 0)}); }, ErrorCode::kInvalidData,
     "elements"},
    {"dimensions that overflow", [] { return with_tensors({tensor("t", {1ull << 32, 1ull << 32}, 0, 0)}); },
     ErrorCode::kInvalidData, "elements"},
    {"dimensions that overflow beside zero",
     [] { return with_tensors({tensor("t", {1ull << 40, 1ull << 40, 0}, 0, 0)}); }, ErrorCode::kInvalidData,
     "elements"},
    {"row inside a block", [] { return with_tensors({tensor("t", {33, 32}, 8, 0)}); }, ErrorCode::kInvalidData,
     "blocks of 32"},
    {"offset not aligned", [] { return with_tensors({tensor("t", {1}, 0, 8)}); }, ErrorCode::kInvalidData,
     "not a multiple of 32"},
    {"offset beyond the file", [] { return with_tensors({tensor("t", {1}, 0, 8192)}); }, ErrorCode::kInvalidData,
     "the file has 4096"},
    {"offset 2^64 - 32", [] { return with_tensors({tensor("t", {8}, 0, ~31ull)}); }, ErrorCode::kInvalidData,
     "the file has 4096"},
    {"end beyond the file", [] { return with_tensors({tensor("t", {1024}, 0, 32)}); }, ErrorCode::kInvalidData,
     "the file has 4096"},
    {"overlap", [] { return with_tensors({tensor("a", {9}, 0, 0), tensor("b", {1}, 0, 32)}); }, ErrorCode::kInvalidData,
     "'a' and 'b' overlap"},
    {"same range", [] { return with_tensors({tensor("a", {1}, 0, 0), tensor("b", {1}, 0, 0)}); },
     ErrorCode::kInvalidData, "overlap"},
};

TEST(Gguf, malformed_files_are_refused_with_a_reason) {
  for (const Malformed& c : kMalformed) {
    SCOPED_TRACE(c.title);
    const Bytes file = c.make();
    const Error error = error_of([&] { parse(file); });
    EXPECT_EQ(error.code(), c.code);
    EXPECT_THAT(error.message(), HasSubstr(c.message));
    EXPECT_THAT(error.message(), HasSubstr("test.gguf"));
  }
}

// Reads everything that a header leads to.
std::size_t walk(const GgufHeader& header, std::span<const std::byte> file) {
  std::size_t sum = to_line(header.scalars).size();
  for (const auto& [key, array] : header.arrays) {
    if (array.element == GgufValueType::kString) {
      for (const std::string_view text : strings(array)) sum += std::hash<std::string_view>()(text);
    } else if (array.element != GgufValueType::kBool) {
      for (const double value : numbers(array)) sum += value > 0;
    }
  }
  for (const TensorInfo& info : header.tensors)
    for (const std::byte b : file.subspan(info.offset, info.bytes)) sum += static_cast<std::size_t>(b);
  return sum;
}

TEST(Gguf, flipped_bytes_give_an_error_or_a_header_that_holds) {
  const Bytes whole = small_file();
  Rng rng(20240607);
  int refused = 0, read = 0;
  for (int i = 0; i < 2000; ++i) {
    std::vector<std::byte> file(whole.span().begin(), whole.span().end());
    for (std::uint64_t flips = 1 + rng.below(4); flips > 0; --flips)
      file[rng.below(file.size())] ^= static_cast<std::byte>(1 + rng.below(255));
    try {
      walk(parse_gguf(file, "flipped"), file);
      ++read;
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 200) << "the flips reach the header";
  EXPECT_GT(read, 200) << "and the values";
}

}  // namespace
}  // namespace tandem
