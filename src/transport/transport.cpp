// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "transport/transport.h"

#include "base/format.h"

namespace tandem {

namespace {

Status no_rows(const char* what, PeerRank peer) {
  return {ErrorCode::kUnsupported,
          format("{} peer {} has rows in device memory, which this transport does not carry", what, peer)};
}

}  // namespace

Status Transport::post_send_rows(PeerRank to, std::span<const std::byte>, std::span<const std::byte>, OperationId) {
  return no_rows("message to", to);
}

Status Transport::post_receive_rows(PeerRank from, std::span<std::byte>, std::span<std::byte>, OperationId) {
  return no_rows("receive from", from);
}

}  // namespace tandem
