// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A build without UCX: what is missing, by name.
#include "transport/ucx/ucx.h"

namespace tandem {

std::unique_ptr<UcxTransport> UcxTransport::make(PeerRank, std::int32_t, const UcxConfig&) {
  throw Error(ErrorCode::kUnsupported,
              "this build has no transport between processes: UCX (libucx-dev) was not there when it was made");
}

}  // namespace tandem
