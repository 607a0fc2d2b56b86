// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What of an endpoint's set-up is the same with and without UCX.
#include <thread>

#include "base/format.h"
#include "transport/ucx/ucx.h"

namespace tandem {

Status UcxTransport::wait_until_ready(Nanoseconds time) {
  const RealClock clock;
  const Nanoseconds end = clock.now() + time;
  while (!ready()) {
    if (clock.now() >= end)
      return {ErrorCode::kUnavailable, format("ucx transport: rank {} has not heard of rank {} in {} ms", rank(),
                                              not_ready(), time / kMillisecond)};
    std::this_thread::yield();
  }
  return Status::ok();
}

}  // namespace tandem
