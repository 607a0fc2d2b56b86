// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "roles/hand_over_bench.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/base/error_of.h"

namespace tandem {
namespace {

using testing::HasSubstr;

// The frames that cross are checked as an engine's are, so a measurement is also a test of what it measures.
TEST(HandOverBench, MeasuresEverySizeOverEachTransport) {
  for (const char* transports : {"posix,self", "tcp"}) {
    const std::vector<HandOverTime> times =
        measure_hand_overs({.transports = transports, .rounds = 3, .sizes = {1024, 256 << 10}});
    ASSERT_EQ(times.size(), 2u);
    EXPECT_EQ(times[1].bytes, 256 << 10);
    for (const HandOverTime& time : times) {
      EXPECT_GT(time.message_us, 0);
      EXPECT_GT(time.frame_us, 0);
      EXPECT_GT(time.sealed_us, 0);
    }
  }
}

TEST(HandOverBench, MeasuresTls) {
  const auto mine = Credentials::of_secret(SecretKey{});
  const TlsTime time = measure_tls(*mine, *mine, "", 3);
  EXPECT_GT(time.handshake_us, 0);
  EXPECT_GT(time.message_us, 0);
  const auto other = Credentials::of_secret(derive_key(SecretKey{}, "another"));
  EXPECT_EQ(error_of([&] { measure_tls(*mine, *other, "", 1); }).code(), ErrorCode::kPermissionDenied);
}

TEST(HandOverBench, WhatCannotBeMeasuredIsSaid) {
  EXPECT_THAT(error_of([] { measure_hand_overs({.sizes = {1000}}); }).message(), HasSubstr("has 1000 bytes"));
  EXPECT_THAT(error_of([] { measure_hand_overs({.transports = "pigeons", .rounds = 1, .sizes = {1024}}); }).message(),
              HasSubstr("pigeons"));
}

}  // namespace
}  // namespace tandem
