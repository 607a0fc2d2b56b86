// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "transport/frame.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <optional>
#include <string>
#include <utility>

#include "base/check.h"
#include "base/format.h"
#include "base/rng.h"

namespace tandem {
namespace {

static_assert(std::endian::native == std::endian::little, "frames are little-endian and used in place");

// Four independent lanes keep the multiplier busy: one multiplication takes three cycles and one can start in each.
constexpr std::size_t kLanes = 4;
constexpr std::size_t kWordBytes = sizeof(std::uint64_t);
using Lanes = std::array<std::uint64_t, kLanes>;

// A bijection of the lane for a given word and of the word for a given lane (the factor is odd), so that a change of
// one word cannot be lost on the way. A product carries upwards only; the shift first brings the high bits down, so
// that a flip of any bit becomes a change of many, which a second flip does not undo.
std::uint64_t absorb(std::uint64_t lane, std::uint64_t word) {
  lane ^= word;
  return (lane ^ (lane >> 32)) * 0x9e3779b97f4a7c15ull;
}

std::uint64_t load_word(const std::byte* from, std::size_t bytes = kWordBytes) {
  std::uint64_t word = 0;
  std::memcpy(&word, from, bytes);
  return word;
}

std::uint64_t frame_checksum(FrameHeader header, std::span<const std::byte> payload) {
  header.checksum = 0;
  return checksum(payload, checksum(std::as_bytes(std::span(&header, 1))));
}

template <class Value, class Limit>
std::string mismatch(const char* what, Value value, const char* relation, Limit limit) {
  return format("frame: {} is {}, {} is {}", what, value, relation, limit);
}

// value in [0, limit), or why not.
std::optional<std::string> outside(const char* what, std::int64_t value, std::int64_t limit) {
  if (value >= 0 && value < limit) return std::nullopt;
  return mismatch(what, value, "the number of them", limit);
}

// value in [0, max], or why not.
std::optional<std::string> above(const char* what, std::int64_t value, std::int64_t max) {
  if (value >= 0 && value <= max) return std::nullopt;
  return mismatch(what, value, "the limit", max);
}

// Whether the payload is one that the table in frame.h describes for its kind.
bool payload_fits(const FrameHeader& header, const FrameLimits& limits) {
  const auto row_bytes = static_cast<std::uint64_t>(limits.hidden) * sizeof(float);
  const auto rows = static_cast<std::uint64_t>(header.rows), slot_rows = static_cast<std::uint64_t>(header.slot_rows);
  const std::uint64_t bytes = header.payload_bytes;
  switch (header.kind) {
    case FrameKind::kControl:
      return bytes == static_cast<std::uint64_t>(limits.micro_batches) * sizeof(std::int32_t);
    case FrameKind::kHandOver: {  // after the rows, k pairs of id and weight for each; k is the layer's business
      const std::uint64_t hidden_bytes = rows * static_cast<std::uint64_t>(limits.hand_over_row_bytes);
      if (rows == 0 || bytes < hidden_bytes) return bytes == 0 && rows == 0;
      return (bytes - hidden_bytes) % (rows * (sizeof(std::int32_t) + sizeof(float))) == 0;
    }
    case FrameKind::kReturn:
      return bytes == slot_rows * row_bytes || bytes == (slot_rows + rows) * row_bytes;
  }
  return false;
}

// Everything but the length and the checksum.
std::optional<std::string> refuse_header(const FrameHeader& header, const FrameLimits& limits) {
  if (header.magic != FrameHeader::kMagic) return mismatch("magic", header.magic, "ours", FrameHeader::kMagic);
  if (header.version != FrameHeader::kVersion)
    return mismatch("version", header.version, "ours", FrameHeader::kVersion);
  const auto kind = static_cast<std::uint16_t>(header.kind);
  if (kind < 1 || kind > static_cast<std::uint16_t>(FrameKind::kReturn)) {
    return mismatch("kind", kind, "the last", static_cast<std::uint16_t>(FrameKind::kReturn));
  }
  if (header.deployment != limits.deployment)
    return mismatch("deployment", header.deployment, "ours", limits.deployment);
  if (header.epoch != limits.epoch) return mismatch("epoch", header.epoch, "ours", limits.epoch);
  if (auto why = outside("source", header.source, limits.ranks)) return why;
  if (auto why = outside("layer", header.layer, limits.layers)) return why;
  if (auto why = outside("micro_batch", header.micro_batch, limits.micro_batches)) return why;
  if (auto why = above("rows", header.rows, limits.rows_max)) return why;
  const bool routed = header.kind == FrameKind::kReturn;
  return above("slot_rows", header.slot_rows, routed ? limits.slot_rows_max : 0);
}

}  // namespace

std::uint64_t checksum(std::span<const std::byte> bytes, std::uint64_t seed) {
  // Only the first lane takes the seed: the sum is then a bijection of the seed, and checksums can be chained. The
  // length is in the second, so that the zeros that fill up the last word are no message of their own.
  Lanes lanes = {mix64(seed), mix64(~bytes.size()), 0x8ebc6af09c88c6e3ull, 0x589965cc75374cc3ull};
  const std::byte* at = bytes.data();
  std::size_t left = bytes.size();
  for (; left >= kLanes * kWordBytes; left -= kLanes * kWordBytes, at += kLanes * kWordBytes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane)
      lanes[lane] = absorb(lanes[lane], load_word(at + lane * kWordBytes));
  }
  for (std::size_t lane = 0; left > 0; ++lane) {
    const std::size_t count = std::min(left, kWordBytes);
    lanes[lane] = absorb(lanes[lane], load_word(at, count));
    at += count;
    left -= count;
  }
  std::uint64_t sum = 0;
  for (const std::uint64_t lane : lanes) sum = mix64(std::rotl(sum, 17) ^ lane);
  return sum;
}

void seal_frame(FrameHeader header, std::span<std::byte> message) {
  TANDEM_CHECK(message.size() >= sizeof header,
               format("a frame of {} bytes has no room for its header", message.size()));
  header.payload_bytes = message.size() - sizeof header;
  header.checksum = frame_checksum(header, payload(message));
  std::memcpy(message.data(), &header, sizeof header);
}

Result<FrameHeader> check_frame(std::span<const std::byte> message, const FrameLimits& limits) {
  const auto refuse = [](std::string why) { return Result<FrameHeader>(ErrorCode::kInvalidData, std::move(why)); };
  FrameHeader header;
  if (message.size() < sizeof header)
    return refuse(mismatch("length", message.size(), "the header alone", sizeof header));
  std::memcpy(&header, message.data(), sizeof header);
  if (auto why = refuse_header(header, limits)) return refuse(std::move(*why));
  const std::size_t bytes = message.size() - sizeof header;
  if (header.payload_bytes != bytes)
    return refuse(mismatch("payload_bytes", header.payload_bytes, "the length received", bytes));
  if (!payload_fits(header, limits)) {
    return refuse(
        format("frame: payload_bytes is {}, which does not fit kind {} with {} rows and {} slot rows of {} floats",
               bytes, static_cast<std::uint16_t>(header.kind), header.rows, header.slot_rows, limits.hidden));
  }
  const std::uint64_t sum = frame_checksum(header, payload(message));
  if (header.checksum != sum) return refuse(mismatch("checksum", header.checksum, "that of its bytes", sum));
  return header;
}

}  // namespace tandem
