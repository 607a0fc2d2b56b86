// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Frames: what A and F say to each other in framed mode. A frame is a FrameHeader and a payload of plain little-endian
// arrays, sent as one message. The receiver checks it against the deployment before it uses a byte (check_frame).
//
//   kind       payload                                                                  from → to
//   kControl   i32 rows[micro_batches]: opens a step                                    A → F, other A
//   kHandOver  f32 hidden[rows, hidden], then in routed layers i32 ids[rows, k],        A → F
//              f32 weights[rows, k]
//   kReturn    f32 slot_rows[slot_rows, hidden] (only this F's experts, in order of     F → A
//              (row, slot); not weighted where experts are cut by width), then f32 partial[rows, hidden] when F holds
//              slices
//
// Where rows go from device to device (Transport::post_send_rows) the arrays above lie in device memory, and the
// frame's payload is what the host reads of them: ids and weights of a hand-over, nothing of a return. Limits have no
// bytes in a row then.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

#include "base/error.h"

namespace tandem {

enum class FrameKind : std::uint16_t { kControl = 1, kHandOver = 2, kReturn = 3 };

struct FrameHeader {
  static constexpr std::uint32_t kMagic = 0x46445454;  // "TTDF"
  static constexpr std::uint16_t kVersion = 1;

  std::uint32_t magic = kMagic;
  std::uint16_t version = kVersion;
  FrameKind kind = FrameKind::kControl;
  std::uint64_t deployment = 0;  // between processes a number that nobody can guess, new in each epoch
  std::uint32_t epoch = 0;       // grows when the deployment changes
  std::int32_t source = 0;       // rank of the sender
  std::uint64_t step = 0;
  std::int32_t layer = 0;
  std::int32_t micro_batch = 0;
  std::int32_t rows = 0;       // tokens
  std::int32_t slot_rows = 0;  // kReturn: rows of routed experts
  std::uint64_t payload_bytes = 0;
  std::uint64_t checksum = 0;  // of header (with this field 0) and payload
};
static_assert(sizeof(FrameHeader) == 64 && std::has_unique_object_representations_v<FrameHeader>);  // no padding

// What a receiver knows beforehand; a frame outside of it is refused.
struct FrameLimits {
  std::uint64_t deployment = 0;
  std::uint32_t epoch = 0;
  std::int32_t ranks = 0;
  std::int32_t layers = 0;
  std::int32_t micro_batches = 0;
  std::int32_t rows_max = 0;
  std::int32_t slot_rows_max = 0;
  std::int32_t hidden = 0;               // floats in a returned row
  std::int32_t hand_over_row_bytes = 0;  // of a handed-over row without its choices
};

// Not cryptographic: finds damage, not malice (links that trust nobody add a seal of their own).
std::uint64_t checksum(std::span<const std::byte> bytes, std::uint64_t seed = 0);

// Completes header (payload_bytes, checksum) for the payload that follows it in message, and writes it there.
void seal_frame(FrameHeader header, std::span<std::byte> message);

// The header of a received message, or why it is refused: too short, wrong magic, version, deployment or epoch, a field
// outside the limits, a length that is not the message's, a checksum that does not fit.
Result<FrameHeader> check_frame(std::span<const std::byte> message, const FrameLimits& limits);

inline std::span<std::byte> payload(std::span<std::byte> message) {
  return message.subspan(sizeof(FrameHeader));
}
inline std::span<const std::byte> payload(std::span<const std::byte> message) {
  return message.subspan(sizeof(FrameHeader));
}

}  // namespace tandem
