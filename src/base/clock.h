// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Time, handed in and never global, so that a simulator can drive the same code.
#pragma once

#include <cstdint>

namespace tandem {

using Nanoseconds = std::int64_t;

inline constexpr Nanoseconds kMicrosecond = 1'000, kMillisecond = 1'000 * kMicrosecond, kSecond = 1'000 * kMillisecond;

class Clock {
 public:
  virtual ~Clock() = default;
  // Monotonic time in nanoseconds since some fixed point. Callable from any thread.
  virtual Nanoseconds now() const = 0;
};

// The machine's monotonic clock.
class RealClock final : public Clock {
 public:
  Nanoseconds now() const override;
};

// A clock that moves when told. One thread.
class VirtualClock final : public Clock {
 public:
  Nanoseconds now() const override { return now_; }
  void advance_to(Nanoseconds time) { now_ = time > now_ ? time : now_; }

 private:
  Nanoseconds now_ = 0;
};

}  // namespace tandem
