// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "transport/frame.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <functional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "base/rng.h"

namespace tandem {
namespace {

using testing::HasSubstr;

constexpr FrameLimits kLimits = {.deployment = 0xd3b10e,
                                 .epoch = 3,
                                 .ranks = 4,
                                 .layers = 5,
                                 .micro_batches = 3,
                                 .rows_max = 16,
                                 .slot_rows_max = 32,
                                 .hidden = 8,
                                 .hand_over_row_bytes = 32};
constexpr std::size_t kRowBytes = 8 * sizeof(float);

FrameHeader header_of(FrameKind kind) {
  return {.kind = kind,
          .deployment = kLimits.deployment,
          .epoch = kLimits.epoch,
          .source = 3,
          .step = 1'000'000'000'000,
          .layer = 4,
          .micro_batch = 2,
          .rows = 2,
          .slot_rows = kind == FrameKind::kReturn ? 3 : 0};
}

std::vector<std::byte> random_bytes(std::size_t count, std::uint64_t seed = 1) {
  Rng rng(seed);
  std::vector<std::byte> bytes(count);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(rng.next() >> 56);
  return bytes;
}

std::vector<std::byte> sealed(const FrameHeader& header, std::size_t payload_bytes) {
  std::vector<std::byte> message = random_bytes(sizeof(FrameHeader) + payload_bytes);
  seal_frame(header, message);
  return message;
}

// Why the frame is refused; empty when it is not.
std::string refusal(std::span<const std::byte> message) {
  const Result<FrameHeader> result = check_frame(message, kLimits);
  if (result) return "";
  EXPECT_EQ(result.error().code(), ErrorCode::kInvalidData);
  return result.error().message();
}

// Where rows lie on a device a frame brings the choices alone.
TEST(Frame, of_rows_on_a_device_has_none_in_its_payload) {
  FrameLimits limits = kLimits;
  limits.hidden = limits.hand_over_row_bytes = 0;
  EXPECT_TRUE(check_frame(sealed(header_of(FrameKind::kReturn), 0), limits).is_ok());
  EXPECT_FALSE(check_frame(sealed(header_of(FrameKind::kReturn), 3 * kRowBytes), limits).is_ok());
  for (const std::size_t k : {0, 1, 4})
    EXPECT_TRUE(check_frame(sealed(header_of(FrameKind::kHandOver), 2 * k * 8), limits).is_ok());
  EXPECT_FALSE(check_frame(sealed(header_of(FrameKind::kHandOver), 12), limits).is_ok());
}

TEST(Checksum, depends_on_every_bit_the_length_and_the_seed) {
  // Lengths around the words and the lanes; every single flip of every one. Sums of two flips that are the same would
  // be a pair of flips that goes unnoticed.
  for (const std::size_t length : {1, 7, 8, 9, 24, 31, 32, 33, 63, 64, 100}) {
    std::vector<std::byte> bytes = random_bytes(length, length);
    std::set<std::uint64_t> sums = {checksum(bytes), checksum(bytes, 1), checksum(std::span(bytes).first(length - 1))};
    for (std::size_t bit = 0; bit < length * 8; ++bit) {
      bytes[bit / 8] ^= std::byte{1} << (bit % 8);
      sums.insert(checksum(bytes));
      bytes[bit / 8] ^= std::byte{1} << (bit % 8);
    }
    EXPECT_EQ(sums.size(), 3 + length * 8) << length;
  }
}

TEST(Checksum, zeros_of_any_number_differ) {
  const std::vector<std::byte> zeros(200);
  std::set<std::uint64_t> sums;
  for (std::size_t length = 0; length <= zeros.size(); ++length) sums.insert(checksum(std::span(zeros).first(length)));
  EXPECT_EQ(sums.size(), zeros.size() + 1);
}

TEST(Checksum, notices_words_that_change_places) {
  std::vector<std::byte> bytes = random_bytes(128);
  const std::uint64_t sum = checksum(bytes);
  for (std::size_t a = 0; a < 128; a += 8) {
    for (std::size_t b = a + 8; b < 128; b += 8) {
      std::vector<std::byte> other = bytes;
      std::swap_ranges(other.begin() + static_cast<std::ptrdiff_t>(a),
                       other.begin() + static_cast<std::ptrdiff_t>(a + 8),
                       other.begin() + static_cast<std::ptrdiff_t>(b));
      EXPECT_NE(checksum(other), sum) << a << " and " << b;
    }
  }
}

TEST(Checksum, does_not_depend_on_alignment) {
  const std::vector<std::byte> bytes = random_bytes(100);
  for (std::size_t shift = 1; shift < 8; ++shift) {
    std::vector<std::byte> moved(shift);
    moved.insert(moved.end(), bytes.begin(), bytes.end());
    EXPECT_EQ(checksum(std::span(moved).subspan(shift)), checksum(bytes));
  }
}

TEST(Checksum, flips_about_half_of_the_bits) {
  std::vector<std::byte> bytes = random_bytes(64);
  const std::uint64_t sum = checksum(bytes);
  double flipped = 0;
  for (std::size_t bit = 0; bit < 512; ++bit) {
    bytes[bit / 8] ^= std::byte{1} << (bit % 8);
    flipped += std::popcount(checksum(bytes) ^ sum);
    bytes[bit / 8] ^= std::byte{1} << (bit % 8);
  }
  EXPECT_NEAR(flipped / 512, 32, 1);
}

TEST(Frame, comes_back_as_sealed) {
  const std::vector<std::byte> message = sealed(header_of(FrameKind::kReturn), 3 * kRowBytes);
  Result<FrameHeader> result = check_frame(message, kLimits);
  ASSERT_TRUE(result) << result.error().message();
  FrameHeader expected = header_of(FrameKind::kReturn);
  expected.payload_bytes = 3 * kRowBytes;
  expected.checksum = result.value().checksum;
  EXPECT_EQ(std::memcmp(&result.value(), &expected, sizeof expected), 0);
  EXPECT_EQ(payload(message).size(), 3 * kRowBytes);
}

TEST(Frame, payload_must_fit_the_kind) {
  struct Case {
    FrameKind kind;
    std::size_t bytes;
    bool fits;
  };
  const Case cases[] = {
      {FrameKind::kControl, 12, true},
      {FrameKind::kControl, 8, false},
      {FrameKind::kControl, 16, false},
      {FrameKind::kHandOver, 2 * kRowBytes, true},              // a dense layer
      {FrameKind::kHandOver, 2 * kRowBytes + 2 * 3 * 8, true},  // three experts per row
      {FrameKind::kHandOver, 2 * kRowBytes + 2 * 3 * 8 - 4, false},
      {FrameKind::kHandOver, 2 * kRowBytes - 4, false},
      {FrameKind::kHandOver, 0, false},
      {FrameKind::kReturn, 3 * kRowBytes, true},  // routed experts alone
      {FrameKind::kReturn, 5 * kRowBytes, true},  // and partial sums of slices
      {FrameKind::kReturn, 4 * kRowBytes, false},
  };
  for (const Case& c : cases) {
    const std::string why = refusal(sealed(header_of(c.kind), c.bytes));
    const int kind = static_cast<int>(c.kind);
    EXPECT_EQ(why.empty(), c.fits) << "kind " << kind << " with " << c.bytes << " bytes: " << why;
    if (!c.fits) {
      EXPECT_THAT(why, HasSubstr("payload_bytes is " + std::to_string(c.bytes))) << "kind " << kind;
    }
  }
  FrameHeader nothing = header_of(FrameKind::kHandOver);
  nothing.rows = 0;
  EXPECT_EQ(refusal(sealed(nothing, 0)), "") << "a micro-batch without rows";
  EXPECT_NE(refusal(sealed(nothing, kRowBytes)), "");
}

TEST(Frame, each_field_is_refused_by_name) {
  struct Case {
    const char* message;
    std::function<void(FrameHeader&)> spoil;
  };
  const Case cases[] = {
      {"magic is 7, ours is 1178883156", [](FrameHeader& h) { h.magic = 7; }},
      {"version is 2, ours is 1", [](FrameHeader& h) { h.version = 2; }},
      {"kind is 0, the last is 3", [](FrameHeader& h) { h.kind = static_cast<FrameKind>(0); }},
      {"kind is 5, the last is 3", [](FrameHeader& h) { h.kind = static_cast<FrameKind>(5); }},
      {"deployment is 1, ours is 13873422", [](FrameHeader& h) { h.deployment = 1; }},
      {"epoch is 2, ours is 3", [](FrameHeader& h) { h.epoch = 2; }},
      {"source is 4, the number of them is 4", [](FrameHeader& h) { h.source = 4; }},
      {"source is -1, the number of them is 4", [](FrameHeader& h) { h.source = -1; }},
      {"layer is 5, the number of them is 5", [](FrameHeader& h) { h.layer = 5; }},
      {"layer is -2147483648, the number of them is 5", [](FrameHeader& h) { h.layer = INT32_MIN; }},
      {"micro_batch is 3, the number of them is 3", [](FrameHeader& h) { h.micro_batch = 3; }},
      {"rows is 17, the limit is 16", [](FrameHeader& h) { h.rows = 17; }},
      {"rows is -1, the limit is 16", [](FrameHeader& h) { h.rows = -1; }},
      {"slot_rows is 33, the limit is 32", [](FrameHeader& h) { h.slot_rows = 33; }},
  };
  for (const Case& c : cases) {
    FrameHeader header = header_of(FrameKind::kReturn);
    c.spoil(header);
    EXPECT_EQ(refusal(sealed(header, 3 * kRowBytes)), std::string("frame: ") + c.message);
  }
  FrameHeader header = header_of(FrameKind::kHandOver);
  header.slot_rows = 1;
  EXPECT_EQ(refusal(sealed(header, 2 * kRowBytes)), "frame: slot_rows is 1, the limit is 0")
      << "only a return has them";
}

TEST(Frame, length_must_be_that_of_the_message) {
  const std::vector<std::byte> message = sealed(header_of(FrameKind::kHandOver), 2 * kRowBytes);
  for (std::size_t length = 0; length < sizeof(FrameHeader); ++length) {
    EXPECT_EQ(refusal(std::span(message).first(length)),
              "frame: length is " + std::to_string(length) + ", the header alone is 64");
  }
  EXPECT_EQ(refusal(std::span(message).first(message.size() - 1)),
            "frame: payload_bytes is 64, the length received is 63");
  std::vector<std::byte> longer = message;
  longer.push_back(std::byte{0});
  EXPECT_EQ(refusal(longer), "frame: payload_bytes is 64, the length received is 65");
}

TEST(Frame, any_flipped_bit_is_refused) {
  std::vector<std::byte> message = sealed(header_of(FrameKind::kHandOver), 2 * kRowBytes + 48);
  ASSERT_EQ(refusal(message), "");
  for (std::size_t bit = 0; bit < message.size() * 8; ++bit) {
    message[bit / 8] ^= std::byte{1} << (bit % 8);
    const std::string why = refusal(message);
    EXPECT_NE(why, "") << "bit " << bit;
    if (bit / 8 >= sizeof(FrameHeader)) {
      EXPECT_THAT(why, HasSubstr("checksum is ")) << "bit " << bit;
    }
    message[bit / 8] ^= std::byte{1} << (bit % 8);
  }
}

TEST(FrameDeathTest, needs_room_for_its_header) {
  std::vector<std::byte> message(sizeof(FrameHeader) - 1);
  EXPECT_DEATH(seal_frame({}, message), "a frame of 63 bytes has no room for its header");
}

}  // namespace
}  // namespace tandem
