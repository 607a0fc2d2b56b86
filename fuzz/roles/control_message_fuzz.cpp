// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Any bytes as a control message: a refusal, or a message that is written as the same bytes, but for one of another
// version, whose fields are nobody's business. The first byte chooses the kind, the rest are its fields, so that no
// input is spent on the header.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <variant>
#include <vector>

#include "base/check.h"
#include "roles/control_message.h"

using namespace tandem;

namespace {

bool of_this_version(const ControlMessage& message) {
  const auto* greeting = std::get_if<Greeting>(&message);
  const auto* welcome = std::get_if<Welcome>(&message);
  if (const auto* order = std::get_if<Order>(&message)) return order->version == kControlVersion;
  return (greeting ? greeting->identity : welcome ? welcome->identity : Identity{}).version == kControlVersion;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  (void)parse_control(std::as_bytes(std::span(data, size)));  // with whatever header it has
  if (size == 0) return 0;
  std::vector<std::byte> bytes = to_bytes(Beat{});
  const std::uint32_t kind = data[0] % (std::variant_size_v<ControlMessage> + 1);
  const std::uint64_t length = size - 1;
  std::memcpy(bytes.data() + 4, &kind, sizeof kind);
  std::memcpy(bytes.data() + 8, &length, sizeof length);
  for (std::size_t i = 1; i < size; ++i) bytes.push_back(std::byte{data[i]});
  if (Result<ControlMessage> message = parse_control(bytes))
    TANDEM_CHECK(!of_this_version(message.value()) || to_bytes(message.value()) == bytes,
                 "what is written is another message");
  return 0;
}
