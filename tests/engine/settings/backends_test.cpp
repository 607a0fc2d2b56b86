// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "engine/settings/backends.h"

#include <gtest/gtest.h>

#include "tests/base/error_of.h"

namespace tandem {
namespace {

TEST(Backends, AreMadeByName) {
  EXPECT_NE(make_backend("reference", "auto", 1)->describe(), make_backend("cpu", "auto", 1)->describe());
}

TEST(Backends, AnUnknownNameIsAnErrorThatListsTheKnownOnes) {
  const Error error = error_of([] { make_backend("gpu", "auto", 1); });
  EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
  for (const char* part : {"\"gpu\"", "cpu", "cuda", "reference", "--device"})
    EXPECT_NE(error.message().find(part), std::string::npos) << error.message();
}

// A GPU that is nearly full is one whose memory is known.
TEST(Backends, OfAGpuTwoGibibytesAreLeftForWhatIsNotCounted) {
  constexpr std::size_t kGiB = std::size_t{1} << 30;
  EXPECT_EQ(gpu_memory_bytes({}), std::nullopt);
  EXPECT_EQ(gpu_memory_bytes({.bytes_free = 1 * kGiB, .bytes_total = 80 * kGiB}), 0);
  EXPECT_EQ(gpu_memory_bytes({.bytes_free = 5 * kGiB, .bytes_total = 80 * kGiB}), 3 * kGiB);
}

}  // namespace
}  // namespace tandem
