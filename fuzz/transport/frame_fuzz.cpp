// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Arbitrary bytes as a received frame. What check_frame accepts must lie inside the limits; then the same payload is
// sealed with the same header, so that mutations also reach what stands behind the checksum.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "base/check.h"
#include "transport/frame.h"

namespace {

constexpr tandem::FrameLimits kLimits = {.deployment = 1,
                                         .epoch = 1,
                                         .ranks = 4,
                                         .layers = 8,
                                         .micro_batches = 3,
                                         .rows_max = 64,
                                         .slot_rows_max = 128,
                                         .hidden = 4,
                                         .hand_over_row_bytes = 16};

bool within(std::int32_t value, std::int32_t end) {
  return value >= 0 && value < end;
}

bool accept(std::span<const std::byte> message) {
  tandem::Result<tandem::FrameHeader> result = tandem::check_frame(message, kLimits);
  if (!result) {
    TANDEM_CHECK(!result.error().message().empty(), "a refusal says why");
    return false;
  }
  const tandem::FrameHeader& header = result.value();
  TANDEM_CHECK(within(header.source, kLimits.ranks) && within(header.layer, kLimits.layers) &&
                   within(header.micro_batch, kLimits.micro_batches) && within(header.rows, kLimits.rows_max + 1) &&
                   within(header.slot_rows, kLimits.slot_rows_max + 1),
               "an accepted frame lies inside the limits");
  TANDEM_CHECK(header.payload_bytes == tandem::payload(message).size(), "an accepted frame has the length it names");
  return true;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::vector<std::byte> message(size);
  if (size > 0) std::memcpy(message.data(), data, size);
  accept(message);
  if (size < sizeof(tandem::FrameHeader)) return 0;

  tandem::FrameHeader header;
  std::memcpy(&header, message.data(), sizeof header);
  tandem::seal_frame(header, message);
  if (accept(message)) {
    message.back() ^= std::byte{1};
    TANDEM_CHECK(!accept(message), "a changed bit is noticed");
  }
  return 0;
}
