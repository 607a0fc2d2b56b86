// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "transport/ucx/hello.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace tandem {
namespace {

using testing::HasSubstr;

UcxHello example() {
  return {.from = 1,
          .to = 2,
          .peers = 3,
          .sends_max = 64,
          .message_bytes_max = 1 << 20,
          .token = 0x0123456789abcdef,
          .address = std::vector<std::byte>(100, std::byte{7})};
}

std::string refusal(std::span<const std::byte> bytes) {
  const Result<UcxHello> result = parse_hello(bytes);
  if (result) return "accepted";
  EXPECT_EQ(result.error().code(), ErrorCode::kInvalidData);
  return result.error().message();
}

TEST(UcxHello, comes_back_as_it_was) {
  Result<UcxHello> result = parse_hello(to_bytes(example()));
  ASSERT_TRUE(result);
  const UcxHello& hello = result.value();
  EXPECT_EQ(hello.from, 1);
  EXPECT_EQ(hello.to, 2);
  EXPECT_EQ(hello.peers, 3);
  EXPECT_EQ(hello.sends_max, 64);
  EXPECT_EQ(hello.message_bytes_max, std::uint64_t{1} << 20);
  EXPECT_EQ(hello.token, 0x0123456789abcdefu);
  EXPECT_EQ(hello.address, example().address);
}

TEST(UcxHello, any_change_is_noticed) {
  std::vector<std::byte> bytes = to_bytes(example());
  for (std::byte& byte : bytes) {
    byte ^= std::byte{1};
    EXPECT_NE(refusal(bytes), "accepted") << "byte " << &byte - bytes.data();
    byte ^= std::byte{1};
  }
  EXPECT_EQ(refusal(bytes), "accepted");
}

TEST(UcxHello, refusals_say_why) {
  const std::vector<std::byte> bytes = to_bytes(example());
  EXPECT_EQ(refusal({}), "ucx hello: 0 bytes, at least 56 are needed");
  EXPECT_THAT(refusal(std::span(bytes).first(bytes.size() - 1)),
              HasSubstr("address of 100 bytes in a message with 99"));
  EXPECT_THAT(refusal(std::span(bytes).first(56)), HasSubstr("address of 100 bytes in a message with 0"));
  std::vector<std::byte> other = bytes;
  other[4] = std::byte{9};
  EXPECT_EQ(refusal(other), "ucx hello: version 9, this is 1");
  UcxHello stranger = example();
  stranger.from = 3;
  EXPECT_EQ(refusal(to_bytes(stranger)), "ucx hello: from rank 3 to rank 2 of 3 peers");
}

}  // namespace
}  // namespace tandem
