// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Posts frames of hand-overs and returns. Where the transport carries rows from device to device, they have a place
// beside the frame; else rows is empty, without an address, and the frame is all there is.
#pragma once

#include <cstddef>
#include <span>

#include "transport/transport.h"

namespace tandem {

inline Status post_send(Transport& transport, PeerRank to, std::span<const std::byte> frame,
                        std::span<const std::byte> rows, OperationId operation) {
  return rows.data() ? transport.post_send_rows(to, frame, rows, operation) : transport.post_send(to, frame, operation);
}

inline Status post_receive(Transport& transport, PeerRank from, std::span<std::byte> frame, std::span<std::byte> rows,
                           OperationId operation) {
  return rows.data() ? transport.post_receive_rows(from, frame, rows, operation)
                     : transport.post_receive(from, frame, operation);
}

}  // namespace tandem
